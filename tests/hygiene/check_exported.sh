#!/bin/sh
# check_exported.sh static|shared LIBRARY [HEADER]: every name that the library gives to a program is in namespace
# sida, or is one of the functions sida_* that HEADER, the C interface, declares; and all of those are there.
#   static: strong definitions, since they clash with a namesake when the program is linked; hidden ones too.
#   shared: all dynamic definitions, since a namesake may replace them, or be replaced, when the program is loaded.
set -eu
kind=$1
library=$2
ours='(_Z(N|NK|NR|NKR|NO|TIN|TSN|TVN|TTN|THN|TWN|GVN|ZN|ZNK|GVZN|GVZNK|Thn[0-9]+_N|Thn[0-9]+_NK)4sida)'

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
declared=
if [ $# -ge 3 ]; then
  declared=$(grep -oE '\bsida_[a-z_]+\(' "$3" | tr -d '(' | sort -u)
fi
status=0
for name in $declared; do
  if ! printf '%s\n' "$names" | grep -qx "$name"; then
    echo "$library: does not export $name, which $3 declares" >&2
    status=1
  fi
done
strangers=$(printf '%s\n' "$names" | grep -Ev "^$ours" | grep -vxF "${declared:-no C functions}" | c++filt | sort -u)
if [ -n "$strangers" ]; then
  printf '%s\n' "$strangers"
  echo "$library: exports the above, which are neither in namespace sida nor in its C interface" >&2
  status=1
fi
exit $status
