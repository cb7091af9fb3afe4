#include <stddef.h>
#include <stdio.h>
// jpeglib.h uses size_t and FILE without declaring them.
#include <jpeglib.h>
