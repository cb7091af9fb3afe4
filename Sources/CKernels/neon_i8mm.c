// AArch64 with the int8 matrix extension (Cortex-A510, A710, X2 and later): usmmla multiplies 2 rows × 8 columns of
// weights with 8 columns × 2 tokens of activations.
#include "internal.h"

#if defined(__aarch64__)
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod+i8mm")))
#include "vector_neon.h"

#define ISA i8mm
#define PRODUCT_TILE 4
#define PANEL_TILE 1
#define ZERO_POINT_IN_DOT 0
#define COPIES_INT8 1

INLINE int8x16_t broadcast_quad(const int8_t *x) {
  int32_t quad;
  memcpy(&quad, x, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(quad));
}

// Two neighbouring k-quads of the same 4 rows become 2 rows × 8 columns, twice.
INLINE void store_tiles(uint8_t *to, uint8x16_t even, uint8x16_t odd) {
  uint32x4_t a = vreinterpretq_u32_u8(even), b = vreinterpretq_u32_u8(odd);
  vst1q_u8(to, vreinterpretq_u8_u32(vzip1q_u32(a, b)));
  vst1q_u8(to + 16, vreinterpretq_u8_u32(vzip2q_u32(a, b)));
}

INLINE void unpack_group(const uint32_t type, const uint8_t *weights, uint8_t *unpacked) {
  for (int pair = 0; pair < 4; pair++) // of k-quads
    for (int v = 0; v < 4; v++) {      // four rows
      uint8x16_t even, odd;
      if (type == SQUINT_INT8) {
        even = vld1q_u8(weights + 128 * pair + 16 * v);
        odd = vld1q_u8(weights + 128 * pair + 64 + 16 * v);
      } else {
        uint8x16_t both = vld1q_u8(weights + 64 * pair + 16 * v);
        even = vandq_u8(both, vdupq_n_u8(15));
        odd = vshrq_n_u8(both, 4);
      }
      store_tiles(unpacked + 128 * pair + 32 * v, even, odd);
    }
}

INLINE void dot_tile(const int n, const int m, const bool is_int8, const uint8_t *weights, size_t weight_stride,
                     const int8_t *x, size_t x_stride, vi dot[][4]) {
  (void)m, (void)weight_stride;
  (void)is_int8;
  const int token_pairs = (n + 1) / 2;
  vi acc[PRODUCT_TILE / 2][8]; // [token pair][row pair]: r0·t0 r0·t1 r1·t0 r1·t1
  for (int tp = 0; tp < token_pairs; tp++)
    for (int r = 0; r < 8; r++)
      acc[tp][r] = vi_zero();
#pragma GCC unroll 4
  for (int pair = 0; pair < 4; pair++) {
    int8x16_t xs[PRODUCT_TILE / 2];
    for (int tp = 0; tp < token_pairs; tp++) {
      const int8_t *first = x + 2 * tp * x_stride + 8 * pair;
      xs[tp] = vcombine_s8(vld1_s8(first), vld1_s8(n == 1 ? first : first + x_stride));
    }
    for (int r = 0; r < 8; r++) {
      uint8x16_t w = vld1q_u8(weights + 128 * pair + 16 * r);
      for (int tp = 0; tp < token_pairs; tp++)
        acc[tp][r] = vusmmlaq_s32(acc[tp][r], w, xs[tp]);
    }
  }
  for (int tp = 0; tp < token_pairs; tp++)
    for (int v = 0; v < 4; v++) {
      dot[2 * tp][v] = vuzp1q_s32(acc[tp][2 * v], acc[tp][2 * v + 1]);
      if (2 * tp + 1 < n)
        dot[2 * tp + 1][v] = vuzp2q_s32(acc[tp][2 * v], acc[tp][2 * v + 1]);
    }
}

INLINE void dot_group(const uint32_t type, const uint8_t *weights, const int8_t *x, vi dot[4]) {
  for (int v = 0; v < 4; v++)
    dot[v] = vi_zero();
  for (int pair = 0; pair < 4; pair++) {
    int8x16_t even_xs = broadcast_quad(x + 8 * pair), odd_xs = broadcast_quad(x + 8 * pair + 4);
    for (int v = 0; v < 4; v++) {
      uint8x16_t even, odd;
      if (type == SQUINT_INT8) {
        even = vld1q_u8(weights + 128 * pair + 16 * v);
        odd = vld1q_u8(weights + 128 * pair + 64 + 16 * v);
      } else {
        uint8x16_t both = vld1q_u8(weights + 64 * pair + 16 * v);
        even = vandq_u8(both, vdupq_n_u8(15));
        odd = vshrq_n_u8(both, 4);
      }
      dot[v] = vusdotq_s32(dot[v], even, even_xs);
      dot[v] = vusdotq_s32(dot[v], odd, odd_xs);
    }
  }
}

#define KEY_BIAS 0
#define VALUE_DOTS 1
INLINE vi vi_dot(vi acc, vi k, vi q) { return vdotq_s32(acc, vreinterpretq_s8_s32(k), vreinterpretq_s8_s32(q)); }

#include "product.h"

#include "elementwise.h"

#include "plain.h"

#include "attention.h"

#include "attention_int8.h"

#include "table.h"
#endif
