#!/bin/sh
# custom_source_errors.sh FOLDER: the program custom_source in FOLDER, with files that it cannot serve.
set -eu
cd "$1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# expect_error FILE WORDS: status 1, nothing on stdout, one line on stderr that names the file and says WORDS.
expect_error() {
  status=0
  ./custom_source "$1" >"$work/out" 2>"$work/err" || status=$?
  if [ $status -ne 1 ] || [ -s "$work/out" ] || [ "$(wc -l <"$work/err")" -ne 1 ] ||
      ! grep -qF "$1: " "$work/err" || ! grep -qF "$2" "$work/err"; then
    cat "$work/out" "$work/err"
    echo "status $status; expected 1 and one line on stderr with '$1' and '$2'" >&2
    exit 1
  fi
}

./custom_source --write "$work/whole.stk"
./custom_source "$work/whole.stk" >/dev/null
size=$(wc -c <"$work/whole.stk")
head -c $((size - 1)) "$work/whole.stk" >"$work/short.stk"
head -c 19 "$work/whole.stk" >"$work/header.stk"
: >"$work/empty.stk"
cp CMakeCache.txt "$work/foreign.stk"
expect_error "$work/missing.stk" "No such file"
expect_error "$work/short.stk" "truncated"
expect_error "$work/header.stk" "too short"
expect_error "$work/empty.stk" "too short"
expect_error "$work/foreign.stk" "not a stacked expert file"
expect_error "$work" "Is a directory"
