// AArch64 without the dot product extension (Cortex-A53, A72).
#include "internal.h"

#if defined(__aarch64__)
#include "vector_neon.h"

#define ISA neon
#define PRODUCT_TILE 2
#define PANEL_TILE 1
#define ZERO_POINT_IN_DOT 1
#define COPIES_INT8 1

// Two copies of four columns of x, to meet two rows of weights.
INLINE int8x8_t broadcast_quad(const int8_t *x) {
  int32_t quad;
  memcpy(&quad, x, 4);
  return vreinterpret_s8_s32(vdup_n_s32(quad));
}

INLINE int8x16_t load_signed(const uint8_t *weights) { return vreinterpretq_s8_u8(vld1q_u8(weights)); }

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

// dot[v]: rows 4v...4v+3. A product register holds 4 products of each of two rows. Two products of int8 weights, at
// most 2 · 128 · 127 = 32,512, fit int16, as do 8 of int4 weights, at most 8 · 15 · 127 = 15,240.
INLINE void dot_tile(const int n, const int m, const bool is_int8, const uint8_t *weights, size_t weight_stride,
                     const int8_t *x, size_t x_stride, vi dot[][4]) {
  (void)m, (void)weight_stride;
  for (int t = 0; t < n; t++, x += x_stride)
    for (int v = 0; v < 4; v++) {
      int32x4_t low = vdupq_n_s32(0), high = low;
      int16x8_t low_products = vdupq_n_s16(0), high_products = low_products;
      for (int quad = 0; quad < 8; quad++) {
        int8x16_t w = load_signed(weights + 64 * quad + 16 * v);
        int8x8_t xs = broadcast_quad(x + 4 * quad);
        low_products = vmlal_s8(low_products, vget_low_s8(w), xs);
        high_products = vmlal_s8(high_products, vget_high_s8(w), xs);
        if (is_int8 ? quad % 2 == 1 : quad == 7) {
          low = vpadalq_s16(low, low_products);
          high = vpadalq_s16(high, high_products);
          low_products = high_products = vdupq_n_s16(0);
        }
      }
      dot[t][v] = vpaddq_s32(low, high);
    }
}

INLINE void dot_group(const uint32_t type, const uint8_t *weights, const int8_t *x, vi dot[4]) {
  for (int v = 0; v < 4; v++) {
    int32x4_t low = vdupq_n_s32(0), high = low;
    int16x8_t low_products = vdupq_n_s16(0), high_products = low_products;
    for (int pair = 0; pair < 4; pair++) {
      int8x16_t even, odd;
      if (type == SQUINT_INT8) {
        even = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(weights + 128 * pair + 16 * v), vdupq_n_u8(0x80)));
        odd = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(weights + 128 * pair + 64 + 16 * v), vdupq_n_u8(0x80)));
      } else {
        uint8x16_t both = vld1q_u8(weights + 64 * pair + 16 * v);
        even = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
        odd = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
      }
      int8x8_t even_xs = broadcast_quad(x + 8 * pair), odd_xs = broadcast_quad(x + 8 * pair + 4);
      low_products = vmlal_s8(low_products, vget_low_s8(even), even_xs);
      low_products = vmlal_s8(low_products, vget_low_s8(odd), odd_xs);
      high_products = vmlal_s8(high_products, vget_high_s8(even), even_xs);
      high_products = vmlal_s8(high_products, vget_high_s8(odd), odd_xs);
      if (type == SQUINT_INT8 || pair == 3) {
        low = vpadalq_s16(low, low_products);
        high = vpadalq_s16(high, high_products);
        low_products = high_products = vdupq_n_s16(0);
      }
    }
    dot[v] = vpaddq_s32(low, high);
  }
}

#define KEY_BIAS 0
#define VALUE_DOTS 0
// Two products of bytes in -127...127 fit int16.
INLINE vi vi_dot(vi acc, vi k, vi q) {
  const int8x16_t ks = vreinterpretq_s8_s32(k), qs = vreinterpretq_s8_s32(q);
  const int16x8_t low = vmull_s8(vget_low_s8(ks), vget_low_s8(qs)), high = vmull_high_s8(ks, qs);
  return vpadalq_s16(acc, vpaddq_s16(low, high));
}

#include "product.h"

#include "elementwise.h"

#include "plain.h"

#include "attention.h"

#include "attention_int8.h"

#include "table.h"
#endif
