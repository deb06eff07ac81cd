#!/bin/sh
# free_of_sida.sh FOLDER FILE...: no source in FOLDER but the FILEs mentions sida.
set -eu
cd "$1"
shift
status=0
for source in *.cpp *.hpp; do
  for allowed in "$@"; do
    [ "$source" != "$allowed" ] || continue 2
  done
  if grep -nE 'sida/|sida::' "$source" /dev/null; then
    status=1
  fi
done
[ $status -eq 0 ] || echo "the above belongs into one of: $*" >&2
exit $status
