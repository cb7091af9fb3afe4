// The arithmetic of Squint: every loop that touches each weight or each activation.
//
// Each function exists once per instruction set (generic.c, avx2.c, …); squint_kernels_at() lists what was compiled in,
// best first, and squint_kernels_supported() says what this CPU runs. No function allocates, keeps state or reads the
// clock; all may run on several threads at once as long as their outputs do not overlap. Pointers need the alignment of
// their element only, but for `weights`, whose panels start at multiples of 64 bytes.
//
// Rounding is to nearest, ties to even, the mode in which a thread starts.
#ifndef SQUINT_KERNELS_H
#define SQUINT_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// How numbers are stored: ElementType's raw values.
enum {
  SQUINT_F32 = 0,
  SQUINT_F16 = 1,
  SQUINT_BF16 = 2,
  SQUINT_INT8 = 16,
  SQUINT_INT4 = 17,
  SQUINT_INT4_F16 = 18,
};

// How the panels of a quantized type hold numbers: PanelType's twin.
typedef struct {
  uint32_t type;                           // SQUINT_INT8, SQUINT_INT4 or SQUINT_INT4_F16
  size_t group_bytes;                      // the weights of one group of 16 rows and 32 columns
  size_t (*header_bytes)(uint32_t groups); // the header of a block of so many groups
} squint_panel_type;

// The quantized types; NULL past the last.
const squint_panel_type *squint_panel_types_at(size_t index);

// A row in the form of `quantize`.
typedef struct {
  int8_t *q;     // [groups * 32]
  float *scales; // [groups]
  int32_t *sums; // [groups]
} squint_rounded;

// y[token, row] (+)= Σ_column W[row, column] · x[token, column], for W in panels (PanelLayout.swift) and x quantized by
// `quantize`. Within a group of 32 columns the sum is exact in int32; groups are summed in f32.
typedef struct {
  const uint8_t *weights; // panels, aligned to 64 bytes
  uint32_t type;          // SQUINT_INT8, SQUINT_INT4 or SQUINT_INT4_F16
  uint32_t rows;          // of W
  uint32_t groups;        // of 32 columns, at least 1
  uint32_t tokens;
  const int8_t *x;       // [tokens][groups * 32], in -127...127
  const float *x_scales; // [tokens][groups]
  const int32_t *x_sums; // [tokens][groups]: Σ x, for the zero point and the minimum
  float *y;              // [tokens][y_stride]
  size_t y_stride;       // at least rows
  bool accumulate;       // y += instead of y =
} squint_product;

// y[token, row] (+)= Σ_column W[row, column] · x[token, column], for W in plain rows and x in f32; f32 sums.
typedef struct {
  const void *weights; // [rows][columns]
  uint32_t type;       // SQUINT_F32, SQUINT_F16 or SQUINT_BF16
  uint32_t rows;
  uint32_t columns;
  uint32_t tokens;
  const float *x;  // [tokens][x_stride]
  size_t x_stride; // at least columns
  float *y;        // [tokens][y_stride]
  size_t y_stride; // at least rows
  bool accumulate; // y += instead of y =
} squint_plain_product;

// The rows first ..< end of a cache.
typedef struct {
  uint32_t first;
  uint32_t end;
} squint_span;

// Attention of the query heads that share one KV head, against that head's cache:
//
//     out[token, head, :] = Σ_p softmax_p(scale · q[token, head, :] · K[p, :]) · V[p, :]
//
// over the positions p that the token sees, which are rows of the cache that follow each other: seen[token]. Whatever
// hides the others (causality, a window, spans whose rows see each other, blocks) is in these. A token that may see no
// position gets zeros. The softmax is the online one of Milakov & Gimelshein (arXiv 1805.02867) over tiles of
// positions, so no tokens × positions matrix exists.
//
// Sums are in f32 or, over a cache in int8, exact in integers within a group of 32 columns: queries are then rounded to
// 15 bits of the largest magnitude of their group, and weights, where values are multiplied in integers, as
// attention_int8.h says.
typedef struct {
  const float *q;           // [tokens][q_token_stride], head h at h * q_head_stride
  size_t q_token_stride;    // in floats
  size_t q_head_stride;     // in floats
  uint32_t heads;           // query heads that share this KV head
  uint32_t head_dim;        // 1...SQUINT_MAXIMUM_HEAD_DIM
  const void *k;            // [positions][kv_stride], the first head_dim of each row
  const void *v;            // [positions][kv_stride]
  const uint16_t *k_scales; // SQUINT_INT8 only: f16 [positions][scale_stride], one per 32 elements
  const uint16_t *v_scales;
  size_t kv_stride;        // in elements, at least head_dim
  size_t scale_stride;     // in elements, at least ceil(head_dim / 32)
  uint32_t kv_type;        // SQUINT_F32, SQUINT_F16, or SQUINT_INT8 (signed values × scale)
  uint32_t positions;      // rows of the cache that hold data
  const squint_span *seen; // [tokens]; NULL: every token sees all positions
  float scale;
  float *out; // [tokens][out_token_stride], head h at h * out_head_stride
  size_t out_token_stride;
  size_t out_head_stride;
  // [tokens][heads][2], or NULL: the largest scaled score m and Σ_p exp(score - m), with which the attention over parts
  // of the positions can be put together.
  float *statistics;
} squint_attention;

enum { SQUINT_MAXIMUM_HEAD_DIM = 512 };

// How many floats of scratch `attention` needs for heads of this dimension.
size_t squint_attention_scratch(uint32_t head_dim);

// The kernels of one instruction set.
typedef struct {
  // generic, avx2, avxvnni, avx512vnni, neon, dotprod or i8mm
  const char *name;

  // Computes the rows of `panels` panels (16 rows each) from `first_panel` on, for all tokens.
  void (*product)(const squint_product *, uint32_t first_panel, uint32_t panels);

  // The inner loop of `product` alone: multiplies one group of int8 weights (512 bytes) with as many tokens as a
  // register tile holds (x: 8 · 32 bytes), `repeats` times, from the first-level cache. Returns how many
  // multiplications and additions that was: what the instruction set can do at most.
  uint64_t (*repeat_dots)(const uint8_t *weights, const int8_t *x, uint32_t repeats);

  // Quantizes x[columns] to q[groups * 32], scales[groups], sums[groups], groups = ceil(columns / 32):
  // scale = max|x| / 127, q = round(x / scale), sum = Σ q; q is rounded as ggml's quantize_row_q8_0 does on the
  // same machine (ties to even, x times the reciprocal). Columns beyond the last are zero. A group whose largest
  // magnitude is below 1e-30 becomes zeros with scale 0; one that holds a NaN or an infinity zeros with scale NaN.
  void (*quantize)(const float *x, size_t columns, int8_t *q, float *scales, int32_t *sums);

  // Computes `rows` rows from `first_row` on, for all tokens.
  void (*plain_product)(const squint_plain_product *, uint32_t first_row, uint32_t rows);

  // Row conversions; f32_to_f16 rounds to nearest even.
  void (*f16_to_f32)(const uint16_t *x, float *y, size_t count);
  void (*bf16_to_f32)(const uint16_t *x, float *y, size_t count);
  void (*f32_to_f16)(const float *x, uint16_t *y, size_t count);
  // y[count] = scale · x, for the KV cache: q[count] and f16 scales[ceil(count / 32)], as `quantize` (the scale is then
  // rounded to f16).
  void (*f32_to_int8)(const float *x, size_t count, int8_t *q, uint16_t *scales);

  // Quantizes x to int8 panels, as `quantize` with the scale rounded to f16, so that `product` can multiply with it:
  // attention in integers. pack_rows: one panel, whose row r is x[r · x_stride + column], for `rows` rows (at most 16).
  // pack_columns: the columns of group `group` of one panel of a matrix of `columns` columns; row r of column c of the
  // group is x[c · x_stride + r], for `rows` rows. A NaN or an infinity makes its group NaN.
  void (*pack_rows)(const float *x, size_t x_stride, uint32_t rows, uint32_t columns, uint8_t *panel);
  void (*pack_columns)(const float *x, size_t x_stride, uint32_t rows, uint32_t columns, uint32_t group,
                       uint8_t *panel);

  // Computes the tokens first_token ..< first_token + tokens. `scratch` holds squint_attention_scratch(head_dim)
  // floats.
  void (*attention)(const squint_attention *, uint32_t first_token, uint32_t tokens, float *scratch);

  // y = x · weight / sqrt(mean(x²) + epsilon) (arXiv 1910.07467); x, weight, y: [count]; y may be x.
  void (*rms_norm)(const float *x, const float *weight, float *y, size_t count, float epsilon);

  // y = (x - mean(x)) / sqrt(variance(x) + epsilon) · weight + bias (arXiv 1607.06450), the variance being the mean
  // square of the deviations; x, weight, bias, y: [count]; y may be x.
  void (*layer_norm)(const float *x, const float *weight, const float *bias, float *y, size_t count, float epsilon);

  // Rotary embedding in place, in the layout of Hugging Face's rotate_half: the pair (x[i], x[i + pairs]) of each head
  // turns by the angle whose cosine and sine are given; what lies beyond 2 · pairs is left as it is.
  // x: [heads][head_stride]; cosines, sines: [pairs].
  void (*rotary)(float *x, size_t heads, size_t head_stride, size_t pairs, const float *cosines, const float *sines);

  // x = H · x / √n in place for each run of n numbers of each head, n being the largest power of two that divides
  // `width`, and H Sylvester's Hadamard matrix: H[i][j] = -1 where i and j share an odd number of bits, otherwise 1. It
  // is its own inverse. x: [heads][head_stride], of which the first `width`.
  void (*hadamard)(float *x, size_t heads, size_t head_stride, size_t width);

  // y = gate / (1 + exp(-gate)) · up (SwiGLU, arXiv 2002.05202); all [count]; y may be gate or up.
  void (*silu_multiply)(const float *gate, const float *up, float *y, size_t count);

  // Activation functions in place, x: [count]. What they differ from the exact value is at most
  // 2^-22 · max(1, |x|).
  void (*gelu)(float *x, size_t count);       // x/2 · (1 + erf(x/√2)) (arXiv 1606.08415)
  void (*gelu_tanh)(float *x, size_t count);  // x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), its approximation
  void (*quick_gelu)(float *x, size_t count); // x · sigmoid(1.702 x) (CLIP)
  void (*relu)(float *x, size_t count);       // max(x, 0)
  void (*silu)(float *x, size_t count);       // x · sigmoid(x)

  // y = x + other; all [count]; y may be either.
  void (*add)(const float *x, const float *other, float *y, size_t count);
  // y = x · other; all [count]; y may be either.
  void (*multiply)(const float *x, const float *other, float *y, size_t count);

  // high + low = softmax(x · scale), rounded to two numbers in int8: within 2^-15 of the largest weight. All groups of
  // a row have the same scale. x: [count], count >= 1.
  void (*softmax)(const float *x, size_t count, float scale, squint_rounded high, squint_rounded low);

  // y = exp(x), relative error at most 2^-22 for x in -87...88; clamped to that range. All [count].
  void (*exponential)(const float *x, float *y, size_t count);
} squint_kernels;

// The kernels compiled into this program, best first; NULL past the last.
const squint_kernels *squint_kernels_at(size_t index);

// Whether this CPU, under this operating system, can run them.
bool squint_kernels_supported(const squint_kernels *kernels);

#endif
