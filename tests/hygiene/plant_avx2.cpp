// An inline function in an object for one instruction set; the checks must catch it.
inline int twice(int x) { return 2 * x; }

using Function = int (*)(int);
Function pointer_to_twice() { return twice; }
