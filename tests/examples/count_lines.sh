#!/bin/sh
# count_lines.sh MOST FILE: FILE has at most MOST lines of code: not blank, not a comment alone.
set -eu
most=$1
file=$2
# No block comments in these files: one would hide code from the count, or count as code.
if grep -n '/\*' "$file"; then
  echo "$file: the above would be miscounted" >&2
  exit 1
fi
count=$(grep -cvE '^[[:space:]]*(//.*)?$' "$file")
echo "$file: $count lines of code"
if [ "$count" -gt "$most" ]; then
  echo "$file: $count lines of code, more than $most" >&2
  exit 1
fi
