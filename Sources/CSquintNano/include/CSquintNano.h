// The model that is part of the program: models/squint-nano.squint as it is, in a section of its own.
#ifndef SQUINT_NANO_H
#define SQUINT_NANO_H

#include <stdint.h>

// Where the file of the program has it, in bytes, on Linux; -1 where that cannot be told.
int64_t squint_nano_offset(void);
int64_t squint_nano_size(void);

#endif
