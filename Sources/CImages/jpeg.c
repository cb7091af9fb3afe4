#define _POSIX_C_SOURCE 200809L // pread

#include "images.h"
#include "source.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jerror.h>
#include <jpeglib.h>

// Encoders write a dozen scans. Each costs a pass over the whole image, however few its bytes: a file of a few
// kilobytes could keep a board busy for hours. So the larger an image is, the fewer it may have.
enum { LEAST_SCANS = 16, MAXIMUM_SCANS = 100, SCANNED_PIXELS = 320000000 };

struct squint_jpeg {
  struct jpeg_decompress_struct codec;
  struct jpeg_error_mgr errors;
  struct jpeg_source_mgr reader;
  struct jpeg_progress_mgr progress;
  struct source source;
  jmp_buf place;
  enum squint_image_status status;
  char message[JMSG_LENGTH_MAX];
};

static struct squint_jpeg *jpeg_of(j_common_ptr codec) { return codec->client_data; }

static _Noreturn void fail(struct squint_jpeg *jpeg, enum squint_image_status status, const char *message) {
  jpeg->status = status;
  snprintf(jpeg->message, sizeof jpeg->message, "%s", message);
  longjmp(jpeg->place, 1);
}

static void report(j_common_ptr codec) {
  struct squint_jpeg *jpeg = jpeg_of(codec);
  char message[JMSG_LENGTH_MAX];
  codec->err->format_message(codec, message);
  bool memory = codec->err->msg_code == JERR_OUT_OF_MEMORY;
  fail(jpeg, memory ? SQUINT_PICTURE_NO_MEMORY : SQUINT_PICTURE_CORRUPT, message);
}

// Where data is lost, libjpeg warns and fills the rest with grey; a model would describe the grey.
static void warn(j_common_ptr codec, int level) {
  if (level >= 0)
    return; // a trace
  switch (codec->err->msg_code) {
  case JWRN_ADOBE_XFORM:
  case JWRN_BOGUS_PROGRESSION:
  case JWRN_EXTRANEOUS_DATA: // between two segments
  case JWRN_JFIF_MAJOR:
  case JWRN_NOT_SEQUENTIAL:
  case JWRN_TOO_MUCH_DATA:
    codec->err->num_warnings++; // the image is whole
    return;
  case JWRN_HIT_MARKER: // a segment of the image ends too early
    fail(jpeg_of(codec), SQUINT_PICTURE_TRUNCATED, "");
  default:
    report(codec);
  }
}

static void stay_silent(j_common_ptr codec) { (void)codec; }

static int most_scans(const struct jpeg_decompress_struct *codec) {
  uint64_t pixels = (uint64_t)codec->image_width * codec->image_height;
  uint64_t scans = pixels > 0 ? SCANNED_PIXELS / pixels : MAXIMUM_SCANS;
  return scans < LEAST_SCANS ? LEAST_SCANS : scans > MAXIMUM_SCANS ? MAXIMUM_SCANS : (int)scans;
}

static void limit_scans(j_common_ptr codec) {
  if (!codec->is_decompressor)
    return;
  int most = most_scans((j_decompress_ptr)codec);
  if (((j_decompress_ptr)codec)->input_scan_number <= most)
    return;
  char message[64];
  snprintf(message, sizeof message, "more than %d scans", most);
  fail(jpeg_of(codec), SQUINT_PICTURE_CORRUPT, message);
}

static void begin(j_decompress_ptr codec) { (void)codec; }

static boolean fill(j_decompress_ptr codec) {
  struct squint_jpeg *jpeg = jpeg_of((j_common_ptr)codec);
  ssize_t count = source_fill(&jpeg->source);
  if (count < 0)
    fail(jpeg, SQUINT_PICTURE_UNREADABLE, strerror(errno));
  if (count == 0)
    fail(jpeg, SQUINT_PICTURE_TRUNCATED, "");
  jpeg->reader.next_input_byte = jpeg->source.bytes;
  jpeg->reader.bytes_in_buffer = (size_t)count;
  return TRUE;
}

static void skip(j_decompress_ptr codec, long count) {
  struct squint_jpeg *jpeg = jpeg_of((j_common_ptr)codec);
  if (count <= 0)
    return;
  if ((size_t)count <= jpeg->reader.bytes_in_buffer) {
    jpeg->reader.next_input_byte += count;
    jpeg->reader.bytes_in_buffer -= (size_t)count;
  } else {
    jpeg->source.position += count - (long)jpeg->reader.bytes_in_buffer;
    jpeg->reader.bytes_in_buffer = 0;
  }
}

struct squint_jpeg *squint_jpeg_open(int file) {
  struct squint_jpeg *jpeg = calloc(1, sizeof *jpeg);
  if (!jpeg)
    return NULL;
  jpeg->source.file = file;
  jpeg->codec.err = jpeg_std_error(&jpeg->errors);
  jpeg->errors.error_exit = report;
  jpeg->errors.emit_message = warn;
  jpeg->errors.output_message = stay_silent;
  jpeg->codec.client_data = jpeg;
  if (setjmp(jpeg->place)) {
    squint_jpeg_close(jpeg);
    return NULL;
  }
  jpeg_create_decompress(&jpeg->codec);
  jpeg->reader.init_source = begin;
  jpeg->reader.fill_input_buffer = fill;
  jpeg->reader.skip_input_data = skip;
  jpeg->reader.resync_to_restart = jpeg_resync_to_restart;
  jpeg->reader.term_source = begin;
  jpeg->codec.src = &jpeg->reader;
  jpeg->progress.progress_monitor = limit_scans;
  jpeg->codec.progress = &jpeg->progress;
  return jpeg;
}

static uint64_t rounded_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

// At most what libjpeg allocates: tables and pools; of each component a strip of sample rows (jdmainct.c: ten row
// groups, two more stand for the lists of pointers to them) and rows at full size (jdsample.c); and where the image
// comes in several scans, all coefficients, of two bytes each (jdcoefct.c).
static uint64_t codec_bytes(const struct jpeg_decompress_struct *codec) {
  uint64_t bytes = sizeof(struct squint_jpeg) + 262144 + 8 * (uint64_t)codec->image_width;
  bool has_multiple_scans = jpeg_has_multiple_scans((j_decompress_ptr)codec);
  for (int index = 0; index < codec->num_components; index++) {
    const jpeg_component_info *component = &codec->comp_info[index];
    uint64_t columns = rounded_up(component->width_in_blocks, (uint64_t)component->h_samp_factor);
    uint64_t rows = rounded_up(component->height_in_blocks, (uint64_t)component->v_samp_factor);
    bytes += columns * DCTSIZE * (uint64_t)component->v_samp_factor * (DCTSIZE + 4);
    bytes += rounded_up(codec->image_width, (uint64_t)codec->max_h_samp_factor) * (uint64_t)codec->max_v_samp_factor;
    if (has_multiple_scans)
      bytes += columns * rows * DCTSIZE2 * sizeof(JCOEF) + rows * sizeof(void *);
  }
  return bytes;
}

enum squint_image_status squint_jpeg_read_header(struct squint_jpeg *jpeg, struct squint_image_header *header) {
  if (setjmp(jpeg->place))
    return jpeg->status;
  struct jpeg_decompress_struct *codec = &jpeg->codec;
  jpeg_read_header(codec, TRUE);
  header->is_cmyk = codec->jpeg_color_space == JCS_CMYK || codec->jpeg_color_space == JCS_YCCK;
  codec->out_color_space = header->is_cmyk ? JCS_CMYK : JCS_EXT_RGBX;
  codec->dct_method = JDCT_ISLOW;
  codec->do_fancy_upsampling = TRUE;
  header->width = codec->image_width;
  header->height = codec->image_height;
  header->channels = 4;
  header->passes = 1;
  header->codec_bytes = codec_bytes(codec);
  return SQUINT_PICTURE_OK;
}

enum squint_image_status squint_jpeg_start(struct squint_jpeg *jpeg) {
  if (setjmp(jpeg->place))
    return jpeg->status;
  jpeg_start_decompress(&jpeg->codec);
  return SQUINT_PICTURE_OK;
}

enum squint_image_status squint_jpeg_read_row(struct squint_jpeg *jpeg, uint8_t *row) {
  if (setjmp(jpeg->place))
    return jpeg->status;
  jpeg_read_scanlines(&jpeg->codec, &row, 1);
  return SQUINT_PICTURE_OK;
}

const char *squint_jpeg_message(const struct squint_jpeg *jpeg) { return jpeg->message; }

void squint_jpeg_close(struct squint_jpeg *jpeg) {
  jpeg_destroy_decompress(&jpeg->codec);
  free(jpeg);
}
