#!/bin/sh
# expect_failure.sh WORDS... -- COMMAND...: a check that is itself checked: COMMAND fails and says all of WORDS.
set -eu
words=
while [ "$1" != "--" ]; do
  words="$words $1"
  shift
done
shift
if output=$("$@" 2>&1); then
  printf '%s\n' "$output" "passed, but should have failed: $*" >&2
  exit 1
fi
for word in $words; do
  if ! printf '%s\n' "$output" | grep -q -e "$word"; then
    printf '%s\n' "$output" "failed, but without saying $word" >&2
    exit 1
  fi
done
