#!/bin/sh
# compile_twice.sh FILE COMPILER FLAGS...: FILE compiles, and with -DMISUSE fails with its "// expect:" words.
set -eu
export LC_ALL=C
file=$1
shift
expected=$(sed -n 's|^// expect: ||p' "$file")
if [ -z "$expected" ]; then
  echo "$file names no expected error" >&2
  exit 1
fi
if ! "$@" "$file"; then
  echo "$file: the correct use doesn't compile" >&2
  exit 1
fi
if output=$("$@" -DMISUSE "$file" 2>&1); then
  echo "$file: the misuse compiles" >&2
  exit 1
fi
if ! printf '%s\n' "$output" | grep -Eq -e "$expected"; then
  printf '%s\n' "$output" "$file: the misuse fails, but not with: $expected" >&2
  exit 1
fi
