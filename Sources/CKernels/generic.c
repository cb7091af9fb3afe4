// Portable C, for CPUs that none of the other files serves, and to compare them with.
#include "internal.h"

#include "vector_generic.h"

#define ISA generic
#define PRODUCT_TILE 4
#define PANEL_TILE 1
#define ZERO_POINT_IN_DOT 0
#define COPIES_INT8 0

INLINE void unpack_group(const uint32_t type, const uint8_t *weights, uint8_t *unpacked) {
  if (type == SQUINT_INT8) {
    memcpy(unpacked, weights, GROUP_BYTES);
    return;
  }
  for (int pair = 0; pair < 4; pair++) // of k-quads that share 64 bytes
    for (int i = 0; i < 64; i++) {
      unpacked[128 * pair + i] = weights[64 * pair + i] & 15;
      unpacked[128 * pair + 64 + i] = weights[64 * pair + i] >> 4;
    }
}

INLINE void dot_tile(const int n, const int m, const bool is_int8, const uint8_t *weights, size_t weight_stride,
                     const int8_t *x, size_t x_stride, vi dot[][PANEL_ROWS / LANES]) {
  (void)m, (void)weight_stride;
  (void)is_int8;
  for (int t = 0; t < n; t++) {
    int32_t sums[PANEL_ROWS] = {0};
    for (int quad = 0; quad < 8; quad++)
      for (int r = 0; r < PANEL_ROWS; r++)
        for (int c = 0; c < 4; c++)
          sums[r] += weights[64 * quad + 4 * r + c] * x[t * x_stride + 4 * quad + c];
    memcpy(dot[t], sums, sizeof sums);
  }
}

INLINE void dot_group(const uint32_t type, const uint8_t *weights, const int8_t *x, vi dot[]) {
  uint8_t unpacked[GROUP_BYTES];
  vi sums[1][PANEL_ROWS / LANES];
  unpack_group(type, weights, unpacked);
  dot_tile(1, 1, type == SQUINT_INT8, unpacked, 0, x, 0, sums);
  memcpy(dot, sums, sizeof sums);
}

#define KEY_BIAS 0
#define VALUE_DOTS 0
// Two products of bytes in -127...127 fit int16.
INLINE vi vi_dot(vi acc, vi k, vi q) {
  typedef int16_t words __attribute__((vector_size(16)));
  const words ks = (words)k, qs = (words)q;
  const vi sums = (vi)(((ks << 8) >> 8) * ((qs << 8) >> 8) + (ks >> 8) * (qs >> 8));
  return acc + ((sums << 16) >> 16) + (sums >> 16);
}

#include "product.h"

#include "elementwise.h"

#include "plain.h"

#include "attention.h"

#include "attention_int8.h"

#include "table.h"

size_t squint_attention_scratch(uint32_t head_dim) {
  return (2 * MAXIMUM_ROW_BLOCK + POSITION_TILE) * padded_head_dim(head_dim);
}
