// x86-64 with AVX-VNNI (Alder Lake-N and the like: no AVX-512): AVX2 with vpdpbusd in the quantized product.
#include "internal.h"

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma,f16c,avxvnni")))
#include "vector_avx2.h"

#define ISA avxvnni
#define PRODUCT_TILE 4
#define PANEL_TILE 1
#define ZERO_POINT_IN_DOT 0
#define COPIES_INT8 0

INLINE void unpack_group(const uint32_t type, const uint8_t *weights, uint8_t *unpacked) {
  (void)type;
  const vi nibble = _mm256_set1_epi8(15);
  for (int i = 0; i < 8; i++) { // half a pair of k-quads
    vi both = _mm256_loadu_si256((const __m256i *)(weights + 32 * i));
    __m256i *to = (__m256i *)(unpacked + 128 * (i / 2) + 32 * (i % 2));
    _mm256_storeu_si256(to, _mm256_and_si256(both, nibble));
    _mm256_storeu_si256(to + 2, _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble));
  }
}

INLINE void dot_tile(const int n, const int m, const bool is_int8, const uint8_t *weights, size_t weight_stride,
                     const int8_t *x, size_t x_stride, vi dot[][2]) {
  (void)m, (void)weight_stride;
  (void)is_int8;
  for (int t = 0; t < n; t++)
    dot[t][0] = dot[t][1] = vi_zero();
#pragma GCC unroll 8
  for (int quad = 0; quad < 8; quad++)
    for (int v = 0; v < 2; v++) {
      vi w = _mm256_loadu_si256((const __m256i *)(weights + 64 * quad + 32 * v));
      for (int t = 0; t < n; t++)
        dot[t][v] = _mm256_dpbusd_avx_epi32(dot[t][v], w, vi_broadcast(x + t * x_stride + 4 * quad));
    }
}

INLINE void dot_group(const uint32_t type, const uint8_t *weights, const int8_t *x, vi dot[2]) {
  if (type == SQUINT_INT8) {
    vi sums[1][2];
    dot_tile(1, 1, true, weights, 0, x, 0, sums);
    dot[0] = sums[0][0];
    dot[1] = sums[0][1];
    return;
  }
  const vi nibble = _mm256_set1_epi8(15);
  dot[0] = dot[1] = vi_zero();
  for (int pair = 0; pair < 4; pair++)
    for (int v = 0; v < 2; v++) {
      vi both = _mm256_loadu_si256((const __m256i *)(weights + 64 * pair + 32 * v));
      vi low = _mm256_and_si256(both, nibble), high = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
      dot[v] = _mm256_dpbusd_avx_epi32(dot[v], low, vi_broadcast(x + 8 * pair));
      dot[v] = _mm256_dpbusd_avx_epi32(dot[v], high, vi_broadcast(x + 8 * pair + 4));
    }
}

#define KEY_BIAS 0x80
#define VALUE_DOTS 1
INLINE vi vi_dot(vi acc, vi k, vi q) { return _mm256_dpbusd_avx_epi32(acc, k, q); }

#include "product.h"

#include "elementwise.h"

#include "plain.h"

#include "attention.h"

#include "attention_int8.h"

#include "table.h"
#endif
