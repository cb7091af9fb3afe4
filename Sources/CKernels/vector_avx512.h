// The vector vocabulary (see vector_generic.h) of AVX-512 F, BW, VL and VNNI.
#include <immintrin.h>

#define LANES 16
#define DOT_TILE 4
#define LANE_TILE 4
#define ROW_BLOCK 64
#define TARGET __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline, unused)) TARGET

typedef __m512 vf;
typedef __m512i vi;

INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vf_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
INLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE float vf_sum(vf v) { return _mm512_reduce_add_ps(v); }
INLINE float vf_maximum(vf v) { return _mm512_reduce_max_ps(v); }
INLINE __m256 vf_halves_sum(vf v) {
  return _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
}
INLINE void vf_sum4(const vf v[4], float *out) {
  __m256 a = _mm256_hadd_ps(vf_halves_sum(v[0]), vf_halves_sum(v[1]));
  __m256 b = _mm256_hadd_ps(vf_halves_sum(v[2]), vf_halves_sum(v[3]));
  __m256 x = _mm256_hadd_ps(a, b);
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)));
}
INLINE vf vf_round(vf v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vi vi_round(vf v) { return _mm512_cvtps_epi32(v); }
INLINE vf vf_scale(vf v, vf n) { return _mm512_scalef_ps(v, n); }
INLINE vf vf_add_to_exponent(vf v, vf n) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
}
INLINE vf vf_from_int(vi v) { return _mm512_cvtepi32_ps(v); }
INLINE float half_to_float(uint16_t half) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))); }
INLINE vf vf_load_half(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE void vf_store_half(uint16_t *p, vf v) {
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
INLINE vf vf_load_bfloat(const uint16_t *p) {
  vi bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}
INLINE vf vf_load_unsigned_bytes(const uint8_t *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
INLINE vf vf_load_signed_bytes(const int8_t *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
INLINE vi vi_magnitude(vf v) { return _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff)); }
INLINE vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
INLINE vi vi_set(int32_t x) { return _mm512_set1_epi32(x); }
INLINE vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE void vi_store(void *p, vi v) { _mm512_storeu_si512(p, v); }
INLINE vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
INLINE vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
INLINE vi vi_shift_left(vi v, const int n) { return _mm512_slli_epi32(v, n); }
INLINE vi vi_shift_right(vi v, const int n) { return _mm512_srli_epi32(v, n); }
INLINE vi vi_broadcast(const void *p) {
  int32_t quad;
  memcpy(&quad, p, 4);
  return _mm512_set1_epi32(quad);
}
INLINE vi vi_zero(void) { return _mm512_setzero_si512(); }
INLINE int32_t vi_sum(vi v) { return _mm512_reduce_add_epi32(v); }
INLINE int32_t vi_maximum(vi v) { return _mm512_reduce_max_epi32(v); }
INLINE void vi_store_bytes(int8_t *p, vi v) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(v)); }
// The 16 bytes at p + lane · stride, for the four lanes of 128 bits.
INLINE vi vi_load_lanes(const uint8_t *p, size_t stride) {
  vi v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)p));
  v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + stride)), 1);
  v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 2 * stride)), 2);
  return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(p + 3 * stride)), 3);
}
INLINE void load_key_quads(const uint8_t *rows, size_t stride, vi quads[8]) {
  for (int half = 0; half < 2; half++) {
    vi x[4];
    for (int i = 0; i < 4; i++)
      x[i] = vi_load_lanes(rows + i * stride + 16 * half, 4 * stride);
    const vi a = _mm512_unpacklo_epi32(x[0], x[1]), b = _mm512_unpackhi_epi32(x[0], x[1]);
    const vi c = _mm512_unpacklo_epi32(x[2], x[3]), d = _mm512_unpackhi_epi32(x[2], x[3]);
    quads[4 * half] = _mm512_unpacklo_epi64(a, c);
    quads[4 * half + 1] = _mm512_unpackhi_epi64(a, c);
    quads[4 * half + 2] = _mm512_unpacklo_epi64(b, d);
    quads[4 * half + 3] = _mm512_unpackhi_epi64(b, d);
  }
}
#define VALUE_VECTORS 2
INLINE void load_value_quads(const uint8_t *rows, size_t stride, vi quads[VALUE_VECTORS]) {
  const vi words = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const vi bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  for (int v = 0; v < VALUE_VECTORS; v++)
    quads[v] = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, vi_load_lanes(rows + 16 * v, stride)), bytes);
}
