// AArch64 with the dot product extension (Cortex-A55, A76 and later): one register is 4 rows × 4 columns, and sdot adds
// its four products per row exactly.
#include "internal.h"

#if defined(__aarch64__)
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#include "vector_neon.h"

#define ISA dotprod
#define PRODUCT_TILE 4
#define PANEL_TILE 1
#define ZERO_POINT_IN_DOT 1
#define COPIES_INT8 1

INLINE int8x16_t broadcast_quad(const int8_t *x) {
  int32_t quad;
  memcpy(&quad, x, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(quad));
}

INLINE void unpack_group(const uint32_t type, const uint8_t *weights, uint8_t *unpacked) {
  if (type == SQUINT_INT8) {
    for (int i = 0; i < GROUP_BYTES; i += 16)
      vst1q_u8(unpacked + i, veorq_u8(vld1q_u8(weights + i), vdupq_n_u8(0x80)));
  } else {
    for (int i = 0; i < 16; i++) {
      uint8x16_t both = vld1q_u8(weights + 16 * i);
      uint8_t *to = unpacked + 128 * (i / 4) + 16 * (i % 4);
      vst1q_u8(to, vandq_u8(both, vdupq_n_u8(15)));
      vst1q_u8(to + 64, vshrq_n_u8(both, 4));
    }
  }
}

INLINE void dot_tile(const int n, const int m, const bool is_int8, const uint8_t *weights, size_t weight_stride,
                     const int8_t *x, size_t x_stride, vi dot[][4]) {
  (void)m, (void)weight_stride;
  (void)is_int8;
  for (int t = 0; t < n; t++)
    for (int v = 0; v < 4; v++)
      dot[t][v] = vi_zero();
#pragma GCC unroll 2
  for (int half = 0; half < 2; half++) {
    int8x16_t xs[PRODUCT_TILE];
    for (int t = 0; t < n; t++)
      xs[t] = vld1q_s8(x + t * x_stride + 16 * half);
#define QUAD(lane)                                                                                                     \
  for (int v = 0; v < 4; v++) {                                                                                        \
    int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(weights + 256 * half + 64 * lane + 16 * v));                            \
    for (int t = 0; t < n; t++)                                                                                        \
      dot[t][v] = vdotq_laneq_s32(dot[t][v], w, xs[t], lane);                                                          \
  }
    QUAD(0)
    QUAD(1)
    QUAD(2)
    QUAD(3)
#undef QUAD
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
        even = veorq_u8(vld1q_u8(weights + 128 * pair + 16 * v), vdupq_n_u8(0x80));
        odd = veorq_u8(vld1q_u8(weights + 128 * pair + 64 + 16 * v), vdupq_n_u8(0x80));
      } else {
        uint8x16_t both = vld1q_u8(weights + 64 * pair + 16 * v);
        even = vandq_u8(both, vdupq_n_u8(15));
        odd = vshrq_n_u8(both, 4);
      }
      dot[v] = vdotq_s32(dot[v], vreinterpretq_s8_u8(even), even_xs);
      dot[v] = vdotq_s32(dot[v], vreinterpretq_s8_u8(odd), odd_xs);
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
