// x86-64 with AVX-512 F, BW, VL and VNNI (Ice Lake, Zen 4 and later): one register is 16 rows × 4 columns, and
// vpdpbusd adds its four products per row exactly.
#include "internal.h"

#if defined(__x86_64__)
#include "vector_avx512.h"

#define ISA avx512vnni
#define PRODUCT_TILE 6
#define PANEL_TILE 2
#define ZERO_POINT_IN_DOT 0
#define COPIES_INT8 0

INLINE vi low_nibbles(vi both) { return _mm512_and_si512(both, _mm512_set1_epi8(15)); }
INLINE vi high_nibbles(vi both) { return low_nibbles(_mm512_srli_epi16(both, 4)); }

INLINE void unpack_group(const uint32_t type, const uint8_t *weights, uint8_t *unpacked) {
  (void)type;
  for (int pair = 0; pair < 4; pair++) {
    vi both = _mm512_loadu_si512(weights + 64 * pair);
    _mm512_storeu_si512(unpacked + 128 * pair, low_nibbles(both));
    _mm512_storeu_si512(unpacked + 128 * pair + 64, high_nibbles(both));
  }
}

// A broadcast of activations serves two panels: with one, loads would be what the tile waits for.
INLINE void dot_tile(const int n, const int m, const bool is_int8, const uint8_t *weights, size_t weight_stride,
                     const int8_t *x, size_t x_stride, vi dot[][PANEL_TILE]) {
  (void)is_int8;
  for (int t = 0; t < n; t++)
    for (int i = 0; i < m; i++)
      dot[t][i] = vi_zero();
#pragma GCC unroll 8
  for (int quad = 0; quad < 8; quad++) {
    vi w[PANEL_TILE];
    for (int i = 0; i < m; i++)
      w[i] = _mm512_loadu_si512(weights + i * weight_stride + 64 * quad);
    for (int t = 0; t < n; t++) {
      vi xs = vi_broadcast(x + t * x_stride + 4 * quad);
      for (int i = 0; i < m; i++)
        dot[t][i] = _mm512_dpbusd_epi32(dot[t][i], w[i], xs);
    }
    __asm__ volatile("" ::: "memory"); // loads stay near their use: hoisted, they would spill the sums
  }
}

INLINE void dot_group(const uint32_t type, const uint8_t *weights, const int8_t *x, vi dot[1]) {
  vi even = vi_zero(), odd = vi_zero(); // two sums: each waits for itself
  if (type == SQUINT_INT8)
    for (int quad = 0; quad < 8; quad += 2) {
      even = _mm512_dpbusd_epi32(even, _mm512_loadu_si512(weights + 64 * quad), vi_broadcast(x + 4 * quad));
      odd = _mm512_dpbusd_epi32(odd, _mm512_loadu_si512(weights + 64 * quad + 64), vi_broadcast(x + 4 * quad + 4));
    }
  else
    for (int pair = 0; pair < 4; pair++) {
      vi both = _mm512_loadu_si512(weights + 64 * pair);
      even = _mm512_dpbusd_epi32(even, low_nibbles(both), vi_broadcast(x + 8 * pair));
      odd = _mm512_dpbusd_epi32(odd, high_nibbles(both), vi_broadcast(x + 8 * pair + 4));
    }
  dot[0] = vi_add(even, odd);
}

#define KEY_BIAS 0x80
#define VALUE_DOTS 1
INLINE vi vi_dot(vi acc, vi k, vi q) { return _mm512_dpbusd_epi32(acc, k, q); }

#include "product.h"

#include "elementwise.h"

#include "plain.h"

#include "attention.h"

#include "attention_int8.h"

#include "table.h"
#endif
