#!/bin/sh
# check_isa_objects.sh LIBRARY: an object compiled for one instruction set (its file's name says which) defines no
# weak symbol. The linker keeps one copy of an inline function; were it this one, an older processor would crash in
# code that never asked for the instruction set.
set -eu
library=$1
symbols=$(nm -A --defined-only "$library")
if printf '%s\n' "$symbols" | grep -E 'avx|amx|sse4|neon|sve' | grep -E ' [WVu] ' | c++filt | grep .; then
  echo "$library: objects for one instruction set define the above weakly" >&2
  exit 1
fi
