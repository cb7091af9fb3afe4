// Of the library's variants that of f32. Its pkg-config file says so with -D, which the package manager does not take.
#define kiss_fft_scalar float
#include <kissfft/kiss_fftr.h>
