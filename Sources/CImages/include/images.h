// libjpeg-turbo and libpng for Swift: both report an error by longjmp, which Swift frames do not survive. Each call
// here sets its own setjmp, so that an error comes back as a status. The rows are read one at a time, the file in
// pieces.
#ifndef SQUINT_PICTURES_H
#define SQUINT_PICTURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum squint_image_status {
  SQUINT_PICTURE_OK,
  SQUINT_PICTURE_CORRUPT,    // the message says what is wrong
  SQUINT_PICTURE_TRUNCATED,  // the file ends, or its data does, before the image
  SQUINT_PICTURE_UNREADABLE, // read(2) failed; the message is the system's
  SQUINT_PICTURE_NO_MEMORY,
};

// What the first bytes of the file say.
struct squint_image_header {
  uint32_t width;
  uint32_t height;
  uint32_t channels;    // bytes of a pixel in a row that is read
  uint32_t passes;      // how many times all rows are read, each time into the rows that the last time gave
  uint64_t codec_bytes; // at most what the codec holds while it decodes
  bool is_cmyk;         // JPEG: the four channels are inverted cyan, magenta, yellow and black
};

// JPEG: rows of red, green, blue and a byte of no meaning, or of inverted CMYK.
//
// A decoder is made for an open file, which it neither closes nor moves: it reads by position. It is NULL where there
// is no memory for it. After any status but OK the decoder can only be asked for the message and closed.
struct squint_jpeg;
struct squint_jpeg *squint_jpeg_open(int file);
enum squint_image_status squint_jpeg_read_header(struct squint_jpeg *jpeg, struct squint_image_header *header);
// Decodes all scans of a progressive image, nothing of a baseline one.
enum squint_image_status squint_jpeg_start(struct squint_jpeg *jpeg);
enum squint_image_status squint_jpeg_read_row(struct squint_jpeg *jpeg, uint8_t *row);
const char *squint_jpeg_message(const struct squint_jpeg *jpeg);
void squint_jpeg_close(struct squint_jpeg *jpeg);

// PNG: rows of grey, grey and alpha, red, green and blue, or these and alpha, 8 bits each. As above.
struct squint_png;
struct squint_png *squint_png_open(int file);
enum squint_image_status squint_png_read_header(struct squint_png *png, struct squint_image_header *header);
enum squint_image_status squint_png_start(struct squint_png *png);
enum squint_image_status squint_png_read_row(struct squint_png *png, uint8_t *row);
const char *squint_png_message(const struct squint_png *png);
void squint_png_close(struct squint_png *png);

#ifdef __cplusplus
}
#endif

#endif
