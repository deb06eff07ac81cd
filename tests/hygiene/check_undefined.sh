#!/bin/sh
# check_undefined.sh LIBRARY...: the library never prints, ends or signals a process, or reads the environment, so
# none of its objects may refer to the functions that do.
# Not listed: std::terminate, which compilers refer to for noexcept functions and std::thread (see check_sources.sh);
# the snprintf family, which writes to memory; pwrite, which needs a file; __assert_fail, which release builds don't
# have.
set -eu
forbidden='abort|exit|_exit|_Exit|quick_exit|raise|kill|killpg|tgkill|pthread_kill|sigqueue
write|writev
printf|fprintf|vprintf|vfprintf|dprintf|vdprintf|__printf_chk|__fprintf_chk|__vprintf_chk|__vfprintf_chk
puts|fputs|fputc|putc|putchar|perror|psignal|syslog|__syslog_chk|stdout|stderr
_ZSt4cout|_ZSt4cerr|_ZSt4clog|_ZSt5wcout|_ZSt5wcerr|_ZSt5wclog
getenv|secure_getenv|__secure_getenv|environ|setenv|putenv|unsetenv
system|popen|signal|sigaction|setlocale'
pattern=$(printf '%s' "$forbidden" | tr '\n' '|')

status=0
for library in "$@"; do
  # Lines of nm -A: "archive:object:   U name", with "@VERSION" after names from shared libraries.
  symbols=$(nm -A --undefined-only "$library")
  if [ -z "$symbols" ]; then
    echo "$library: no undefined symbols at all; is it a library?" >&2
    status=1
  fi
  if printf '%s\n' "$symbols" | sed 's/@.*//' | grep -E " [Uwv] ($pattern)$"; then
    echo "$library: refers to the above" >&2
    status=1
  fi
done
exit $status
