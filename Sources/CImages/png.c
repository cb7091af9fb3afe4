#define _POSIX_C_SOURCE 200809L // pread

#include "images.h"
#include "source.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <png.h>

struct squint_png {
  png_structp codec;
  png_infop info;
  struct source source;
  size_t used, filled; // of source.bytes
  jmp_buf place;
  enum squint_image_status status;
  char message[200];
};

static _Noreturn void fail(struct squint_png *png, enum squint_image_status status, const char *message) {
  png->status = status;
  snprintf(png->message, sizeof png->message, "%s", message);
  longjmp(png->place, 1);
}

static void report(png_structp codec, png_const_charp message) {
  fail(png_get_error_ptr(codec), SQUINT_PICTURE_CORRUPT, message);
}

static void stay_silent(png_structp codec, png_const_charp message) {
  (void)codec;
  (void)message;
}

static void read_bytes(png_structp codec, png_bytep out, size_t count) {
  struct squint_png *png = png_get_io_ptr(codec);
  while (count > 0) {
    if (png->used == png->filled) {
      ssize_t filled = source_fill(&png->source);
      if (filled < 0)
        fail(png, SQUINT_PICTURE_UNREADABLE, strerror(errno));
      if (filled == 0)
        fail(png, SQUINT_PICTURE_TRUNCATED, "");
      png->used = 0;
      png->filled = (size_t)filled;
    }
    size_t step = png->filled - png->used < count ? png->filled - png->used : count;
    memcpy(out, png->source.bytes + png->used, step);
    png->used += step;
    out += step;
    count -= step;
  }
}

struct squint_png *squint_png_open(int file) {
  struct squint_png *png = calloc(1, sizeof *png);
  if (!png)
    return NULL;
  png->source.file = file;
  if (setjmp(png->place)) {
    squint_png_close(png);
    return NULL;
  }
  png->codec = png_create_read_struct(PNG_LIBPNG_VER_STRING, png, report, stay_silent);
  if (png->codec)
    png->info = png_create_info_struct(png->codec);
  if (!png->info) {
    squint_png_close(png);
    return NULL;
  }
  png_set_read_fn(png->codec, png, read_bytes);
  // Profiles and texts are not wanted, and unpacked they can be of any size. Skipped, they need no memory, and so no
  // limit on how long they are.
  png_set_keep_unknown_chunks(png->codec, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
  png_set_chunk_malloc_max(png->codec, 0);
  return png;
}

enum squint_image_status squint_png_read_header(struct squint_png *png, struct squint_image_header *header) {
  if (setjmp(png->place))
    return png->status;
  png_read_info(png->codec, png->info);
  header->width = png_get_image_width(png->codec, png->info);
  header->height = png_get_image_height(png->codec, png->info);
  bool has_alpha = png_get_color_type(png->codec, png->info) & PNG_COLOR_MASK_ALPHA ||
                   png_get_valid(png->codec, png->info, PNG_INFO_tRNS);
  bool has_color = png_get_color_type(png->codec, png->info) & PNG_COLOR_MASK_COLOR;
  header->channels = (has_color ? 3 : 1) + (has_alpha ? 1 : 0);
  header->passes = png_get_interlace_type(png->codec, png->info) == PNG_INTERLACE_NONE ? 1 : 7;
  header->is_cmyk = false;
  // The last row and this one, with room for 4 channels of 16 bits, and what zlib and libpng hold.
  header->codec_bytes = sizeof *png + 131072 + 2 * (8 * (uint64_t)header->width + 128);
  return SQUINT_PICTURE_OK;
}

enum squint_image_status squint_png_start(struct squint_png *png) {
  if (setjmp(png->place))
    return png->status;
  png_set_expand(png->codec); // palettes to colours, 1, 2 and 4 bits to 8, a transparent colour to alpha
  png_set_strip_16(png->codec);
  png_set_interlace_handling(png->codec);
  png_read_update_info(png->codec, png->info);
  return SQUINT_PICTURE_OK;
}

enum squint_image_status squint_png_read_row(struct squint_png *png, uint8_t *row) {
  if (setjmp(png->place))
    return png->status;
  png_read_row(png->codec, row, NULL);
  return SQUINT_PICTURE_OK;
}

const char *squint_png_message(const struct squint_png *png) { return png->message; }

void squint_png_close(struct squint_png *png) {
  png_destroy_read_struct(&png->codec, &png->info, NULL);
  free(png);
}
