// The vector vocabulary of the templates in portable C: four lanes of the compiler's vector extension, which becomes
// SSE2, NEON, RVV or plain scalars as the target has it.
//
// A vocabulary defines LANES, the sizes of register tiles, the types `vf` (floats) and `vi` (int32), and the functions
// below; the templates (product.h, elementwise.h, attention.h, plain.h) are written in them once for all instruction
// sets.
#define LANES 4
#define DOT_TILE 2
#define LANE_TILE 2
#define ROW_BLOCK 32
#define INLINE static inline __attribute__((always_inline, unused))
#define TARGET

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));

INLINE vf vf_load(const float *p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }
INLINE vf vf_set(float x) { return (vf){x, x, x, x}; }
INLINE vf vf_add(vf a, vf b) { return a + b; }
INLINE vf vf_sub(vf a, vf b) { return a - b; }
INLINE vf vf_mul(vf a, vf b) { return a * b; }
INLINE vf vf_div(vf a, vf b) { return a / b; }
// a · b + c
INLINE vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf vf_select(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }
// a > b ? a : b, so that a NaN in b comes through
INLINE vf vf_max(vf a, vf b) { return vf_select(a > b, a, b); }
INLINE vf vf_min(vf a, vf b) { return vf_select(a < b, a, b); }
INLINE float vf_sum(vf v) { return (v[0] + v[1]) + (v[2] + v[3]); }
INLINE float vf_maximum(vf v) {
  float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
  return a > b ? a : b;
}
// out[i] = the sum of v[i]'s lanes
INLINE void vf_sum4(const vf v[4], float *out) {
  for (int i = 0; i < 4; i++)
    out[i] = vf_sum(v[i]);
}
// To the nearest integer, ties to even; |v| < 2^22
INLINE vf vf_round(vf v) { return (v + vf_set(0x1.8p23f)) - vf_set(0x1.8p23f); }
// The nearest integer, ties to even; |v| < 2^22
INLINE vi vi_round(vf v) {
  vi magic = (vi)vf_set(0x1.8p23f);
  return (vi)(v + vf_set(0x1.8p23f)) - magic;
}
// v · 2^n for integers n in -126...127
INLINE vf vf_scale(vf v, vf n) { return v * (vf)((vi_round(n) + 127) << 23); }
// v · 2^n, n being the last bits of `n`
INLINE vf vf_add_to_exponent(vf v, vf n) { return (vf)((vi)v + ((vi)n << 23)); }
INLINE vf vf_from_int(vi v) { return (vf){(float)v[0], (float)v[1], (float)v[2], (float)v[3]}; }
INLINE float half_to_float(uint16_t half) { return float_from_half(half); }
INLINE vf vf_load_half(const uint16_t *p) {
  return (vf){float_from_half(p[0]), float_from_half(p[1]), float_from_half(p[2]), float_from_half(p[3])};
}
INLINE void vf_store_half(uint16_t *p, vf v) {
  for (int i = 0; i < 4; i++)
    p[i] = half_from_float(v[i]);
}
INLINE vf vf_load_bfloat(const uint16_t *p) {
  return (vf)((vi){(int32_t)p[0], (int32_t)p[1], (int32_t)p[2], (int32_t)p[3]} << 16);
}
INLINE vf vf_load_unsigned_bytes(const uint8_t *p) { return (vf){(float)p[0], (float)p[1], (float)p[2], (float)p[3]}; }
INLINE vf vf_load_signed_bytes(const int8_t *p) { return (vf){(float)p[0], (float)p[1], (float)p[2], (float)p[3]}; }
// The bits of |v|: they order like the magnitudes, and a NaN is the largest
INLINE vi vi_magnitude(vf v) { return (vi)v & 0x7fffffff; }
INLINE vi vi_max(vi a, vi b) {
  vi mask = a > b;
  return (a & mask) | (b & ~mask);
}
INLINE vi vi_add(vi a, vi b) { return a + b; }
INLINE vi vi_set(int32_t x) { return (vi){x, x, x, x}; }
INLINE vi vi_load(const void *p) {
  vi v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE void vi_store(void *p, vi v) { memcpy(p, &v, sizeof v); }
INLINE vi vi_and(vi a, vi b) { return a & b; }
INLINE vi vi_or(vi a, vi b) { return a | b; }
INLINE vi vi_xor(vi a, vi b) { return a ^ b; }
INLINE vi vi_shift_left(vi v, const int n) { return v << n; }
// Zeros come in from the left
INLINE vi vi_shift_right(vi v, const int n) {
  typedef uint32_t vu __attribute__((vector_size(16)));
  return (vi)((vu)v >> n);
}
// The four bytes at p in every lane
INLINE vi vi_broadcast(const void *p) {
  int32_t quad;
  memcpy(&quad, p, 4);
  return vi_set(quad);
}
INLINE vi vi_zero(void) { return (vi){0, 0, 0, 0}; }
INLINE int32_t vi_sum(vi v) { return v[0] + v[1] + v[2] + v[3]; }
INLINE int32_t vi_maximum(vi v) {
  int32_t a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
  return a > b ? a : b;
}
// The low byte of each lane; lanes are in -128...127
INLINE void vi_store_bytes(int8_t *p, vi v) {
  for (int i = 0; i < 4; i++)
    p[i] = (int8_t)v[i];
}
// Of LANES rows of 32 bytes, `stride` apart: quads[i] has bytes 4i...4i + 3 of each row.
INLINE void load_key_quads(const uint8_t *rows, size_t stride, vi quads[8]) {
  for (int quad = 0; quad < 8; quad++) {
    uint8_t bytes[LANES][4];
    for (int lane = 0; lane < LANES; lane++)
      memcpy(bytes[lane], rows + lane * stride + 4 * quad, 4);
    quads[quad] = vi_load(bytes);
  }
}
// Of 4 rows of VALUE_VECTORS · LANES bytes (a divisor of 32), `stride` apart: lane l of quads[i] has byte LANES · i + l
// of each.
#define VALUE_VECTORS 4
INLINE void load_value_quads(const uint8_t *rows, size_t stride, vi quads[VALUE_VECTORS]) {
  uint8_t bytes[VALUE_VECTORS * LANES][4];
  for (int byte = 0; byte < VALUE_VECTORS * LANES; byte++)
    for (int row = 0; row < 4; row++)
      bytes[byte][row] = rows[row * stride + byte];
  memcpy(quads, bytes, sizeof bytes);
}
