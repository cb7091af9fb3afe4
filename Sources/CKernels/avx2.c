// x86-64 with AVX2, FMA and F16C (Haswell, Zen and later).
#include "internal.h"

#if defined(__x86_64__)
#include "vector_avx2.h"

#define ISA avx2
#define PRODUCT_TILE 4
#define PANEL_TILE 1
#define ZERO_POINT_IN_DOT 1
#define COPIES_INT8 0

// Sums of pairs of int16.
INLINE vi pair_sums(vi words) { return _mm256_madd_epi16(words, _mm256_set1_epi16(1)); }

// vpmaddubsw adds two products of an unsigned and a signed byte in int16, saturating. With |u - 128| as the unsigned
// and x, its sign turned, as the signed byte a sum is at most 2 · 128 · 127 = 32,512: it fits.
INLINE vi int8_products(vi absolute, vi weights, vi x) {
  return pair_sums(_mm256_maddubs_epi16(absolute, _mm256_sign_epi8(x, weights)));
}

INLINE vi load_int8(const uint8_t *weights) {
  return _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)weights), _mm256_set1_epi8((char)0x80));
}

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

INLINE void dot_group(const uint32_t type, const uint8_t *weights, const int8_t *x, vi dot[2]) {
  dot[0] = dot[1] = vi_zero();
  if (type == SQUINT_INT8) {
    for (int quad = 0; quad < 8; quad++) {
      vi xs = vi_broadcast(x + 4 * quad);
      for (int v = 0; v < 2; v++) {
        vi w = load_int8(weights + 64 * quad + 32 * v);
        dot[v] = vi_add(dot[v], int8_products(_mm256_abs_epi8(w), w, xs));
      }
    }
  } else {
    // 16 products of a nibble and a byte, at most 16 · 15 · 127 = 30,480, fit int16: it is widened once.
    const vi nibble = _mm256_set1_epi8(15);
    for (int pair = 0; pair < 4; pair++) {
      vi low_xs = vi_broadcast(x + 8 * pair), high_xs = vi_broadcast(x + 8 * pair + 4);
      for (int v = 0; v < 2; v++) {
        vi both = _mm256_loadu_si256((const __m256i *)(weights + 64 * pair + 32 * v));
        vi low = _mm256_maddubs_epi16(_mm256_and_si256(both, nibble), low_xs);
        vi high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(both, 4), nibble), high_xs);
        dot[v] = _mm256_add_epi16(dot[v], _mm256_add_epi16(low, high));
      }
    }
    for (int v = 0; v < 2; v++)
      dot[v] = pair_sums(dot[v]);
  }
}

INLINE void dot_tile(const int n, const int m, const bool is_int8, const uint8_t *weights, size_t weight_stride,
                     const int8_t *x, size_t x_stride, vi dot[][2]) {
  (void)m, (void)weight_stride;
  for (int t = 0; t < n; t++)
    dot[t][0] = dot[t][1] = vi_zero();
#pragma GCC unroll 8
  for (int quad = 0; quad < 8; quad++) {
    vi w[2], absolute[2];
    for (int v = 0; v < 2; v++) {
      const uint8_t *from = weights + 64 * quad + 32 * v;
      w[v] = is_int8 ? load_int8(from) : _mm256_loadu_si256((const __m256i *)from);
      absolute[v] = _mm256_abs_epi8(w[v]);
    }
    for (int t = 0; t < n; t++) {
      vi xs = vi_broadcast(x + t * x_stride + 4 * quad);
      for (int v = 0; v < 2; v++)
        dot[t][v] = is_int8 ? vi_add(dot[t][v], int8_products(absolute[v], w[v], xs))
                            : _mm256_add_epi16(dot[t][v], _mm256_maddubs_epi16(w[v], xs));
    }
  }
  if (!is_int8)
    for (int t = 0; t < n; t++)
      for (int v = 0; v < 2; v++)
        dot[t][v] = pair_sums(dot[t][v]);
}

#define KEY_BIAS 0
#define VALUE_DOTS 0
INLINE vi vi_dot(vi acc, vi k, vi q) { return vi_add(acc, int8_products(_mm256_abs_epi8(k), k, q)); }

#include "product.h"

#include "elementwise.h"

#include "plain.h"

#include "attention.h"

#include "attention_int8.h"

#include "table.h"
#endif
