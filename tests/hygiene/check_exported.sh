#!/bin/sh
# check_exported.sh static|shared LIBRARY: every name that the library gives to a program is in namespace sida or
# starts with sida_.
#   static: strong definitions, since they clash with a namesake when the program is linked; hidden ones too.
#   shared: all dynamic definitions, since a namesake may replace them, or be replaced, when the program is loaded.
set -eu
kind=$1
library=$2
ours='(_Z(N|NK|NR|NKR|NO|TIN|TSN|TVN|TTN|THN|TWN|GVN|ZN|ZNK|GVZN|GVZNK|Thn[0-9]+_N|Thn[0-9]+_NK)4sida|sida_)'

case $kind in
  static) flags="--extern-only" skipped='[WVuv]' ;;
  shared) flags="--dynamic" skipped='[A]' ;;
  *) echo "usage: check_exported.sh static|shared LIBRARY" >&2; exit 2 ;;
esac
# Lines of nm: "address TYPE name"; type A is a version's name.
symbols=$(nm --defined-only $flags "$library")
names=$(printf '%s\n' "$symbols" | awk -v skipped="^$skipped\$" 'NF == 3 && $2 !~ skipped { print $3 }')

if ! printf '%s\n' "$names" | grep -Eq "^$ours"; then
  echo "$library: exports nothing of sida's" >&2
  exit 1
fi
if printf '%s\n' "$names" | grep -Ev "^$ours" | c++filt | sort -u | grep .; then
  echo "$library: exports the above, which are not in namespace sida" >&2
  exit 1
fi
