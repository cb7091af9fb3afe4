// The bytes of a file, read in pieces by position.
#ifndef SQUINT_PICTURE_SOURCE_H
#define SQUINT_PICTURE_SOURCE_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { SOURCE_BYTES = 65536 };

struct source {
  int file;
  off_t position; // of the next byte that is not in `bytes`
  uint8_t bytes[SOURCE_BYTES];
};

// Fills `bytes` from `position`. Returns how many bytes came, 0 at the end of the file, -1 on an error in errno.
static inline ssize_t source_fill(struct source *source) {
  ssize_t count;
  do {
    count = pread(source->file, source->bytes, SOURCE_BYTES, source->position);
  } while (count < 0 && errno == EINTR);
  if (count > 0)
    source->position += count;
  return count;
}

#endif
