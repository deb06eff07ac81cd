#!/bin/sh
# check_documents.sh FOLDER DOCUMENT... -- COMPILER FLAGS...: compiles every block that opens with "```cpp compile".
# Each is a whole translation unit; "#line" makes the compiler name the document.
set -eu
folder=$1
shift
rm -rf "$folder"
mkdir -p "$folder"
number=0
while [ "$1" != "--" ]; do
  number=$((number + 1))
  awk -v prefix="$folder/$number" -v document="$1" '
    /^```cpp compile/ {
      inside = 1
      file = prefix "-" ++count ".cpp"
      printf "#line %d \"%s\"\n", NR + 1, document > file
      next
    }
    /^```/ { inside = 0 }
    inside { print > file }
  ' "$1"
  shift
done
shift
count=0
for file in "$folder"/*.cpp; do
  [ -e "$file" ] || break
  "$@" "$file"
  count=$((count + 1))
done
echo "$count blocks compile"
