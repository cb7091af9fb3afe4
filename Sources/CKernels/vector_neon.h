// The vector vocabulary (see vector_generic.h) of NEON as every AArch64 CPU has it.
#include <arm_neon.h>

#define LANES 4
#define DOT_TILE 4
#define LANE_TILE 4
#define ROW_BLOCK 32
#ifndef TARGET
#define TARGET
#endif
#define INLINE static inline __attribute__((always_inline, unused)) TARGET

typedef float32x4_t vf;
typedef int32x4_t vi;

INLINE vf vf_load(const float *p) { return vld1q_f32(p); }
INLINE void vf_store(float *p, vf v) { vst1q_f32(p, v); }
INLINE vf vf_set(float x) { return vdupq_n_f32(x); }
INLINE vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
INLINE vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
INLINE vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
INLINE vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
INLINE vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
INLINE vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); }
INLINE vf vf_min(vf a, vf b) { return vminq_f32(a, b); }
INLINE float vf_sum(vf v) { return vaddvq_f32(v); }
INLINE float vf_maximum(vf v) { return vmaxvq_f32(v); }
INLINE void vf_sum4(const vf v[4], float *out) {
  vst1q_f32(out, vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])));
}
INLINE vf vf_round(vf v) { return vrndnq_f32(v); }
INLINE vi vi_round(vf v) { return vcvtnq_s32_f32(v); }
INLINE vf vf_scale(vf v, vf n) {
  vi exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
  return vmulq_f32(v, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
}
INLINE vf vf_add_to_exponent(vf v, vf n) {
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(v), vshlq_n_s32(vreinterpretq_s32_f32(n), 23)));
}
INLINE vf vf_from_int(vi v) { return vcvtq_f32_s32(v); }
INLINE float half_to_float(uint16_t half) {
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), 0);
}
INLINE vf vf_load_half(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
INLINE void vf_store_half(uint16_t *p, vf v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
INLINE vf vf_load_bfloat(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
INLINE vf vf_load_unsigned_bytes(const uint8_t *p) {
  uint32_t bytes;
  memcpy(&bytes, p, 4);
  return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bytes))))));
}
INLINE vf vf_load_signed_bytes(const int8_t *p) {
  uint32_t bytes;
  memcpy(&bytes, p, 4);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(bytes))))));
}
INLINE vi vi_magnitude(vf v) { return vandq_s32(vreinterpretq_s32_f32(v), vdupq_n_s32(0x7fffffff)); }
INLINE vi vi_max(vi a, vi b) { return vmaxq_s32(a, b); }
INLINE vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
INLINE vi vi_set(int32_t x) { return vdupq_n_s32(x); }
INLINE vi vi_load(const void *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
INLINE void vi_store(void *p, vi v) { vst1q_u8(p, vreinterpretq_u8_s32(v)); }
INLINE vi vi_and(vi a, vi b) { return vandq_s32(a, b); }
INLINE vi vi_or(vi a, vi b) { return vorrq_s32(a, b); }
INLINE vi vi_xor(vi a, vi b) { return veorq_s32(a, b); }
INLINE vi vi_shift_left(vi v, const int n) { return v << n; }
INLINE vi vi_shift_right(vi v, const int n) { return vreinterpretq_s32_u32(vreinterpretq_u32_s32(v) >> n); }
INLINE vi vi_broadcast(const void *p) {
  int32_t quad;
  memcpy(&quad, p, 4);
  return vdupq_n_s32(quad);
}
INLINE vi vi_zero(void) { return vdupq_n_s32(0); }
INLINE int32_t vi_sum(vi v) { return vaddvq_s32(v); }
INLINE int32_t vi_maximum(vi v) { return vmaxvq_s32(v); }
INLINE void vi_store_bytes(int8_t *p, vi v) {
  int16x4_t words = vmovn_s32(v);
  uint32_t bytes = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
  memcpy(p, &bytes, 4);
}
INLINE void load_key_quads(const uint8_t *rows, size_t stride, vi quads[8]) {
  for (int half = 0; half < 2; half++) {
    int32x4_t x[4];
    for (int i = 0; i < 4; i++)
      x[i] = vi_load(rows + i * stride + 16 * half);
    const int32x4x2_t a = vtrnq_s32(x[0], x[1]), b = vtrnq_s32(x[2], x[3]);
    for (int i = 0; i < 2; i++) {
      const int64x2_t top = vreinterpretq_s64_s32(a.val[i]), bottom = vreinterpretq_s64_s32(b.val[i]);
      quads[4 * half + i] = vreinterpretq_s32_s64(vtrn1q_s64(top, bottom));
      quads[4 * half + i + 2] = vreinterpretq_s32_s64(vtrn2q_s64(top, bottom));
    }
  }
}
#define VALUE_VECTORS 4
INLINE void load_value_quads(const uint8_t *rows, size_t stride, vi quads[VALUE_VECTORS]) {
  uint8x16_t x[4];
  for (int i = 0; i < 4; i++)
    x[i] = vld1q_u8(rows + i * stride);
  const uint8x16x2_t a = vzipq_u8(x[0], x[1]), b = vzipq_u8(x[2], x[3]);
  for (int i = 0; i < 2; i++) {
    const uint16x8x2_t words = vzipq_u16(vreinterpretq_u16_u8(a.val[i]), vreinterpretq_u16_u8(b.val[i]));
    quads[2 * i] = vreinterpretq_s32_u16(words.val[0]);
    quads[2 * i + 1] = vreinterpretq_s32_u16(words.val[1]);
  }
}
