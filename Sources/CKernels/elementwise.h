// Activation quantization, conversions, norms, rotary embedding and activation functions, in the vector vocabulary.

// The first n < LANES numbers at p, then zeros.
INLINE vf vf_load_part(const float *p, size_t n) {
  float lanes[LANES] = {0};
  memcpy(lanes, p, n * sizeof(float));
  return vf_load(lanes);
}
INLINE void vf_store_part(float *p, vf v, size_t n) {
  float lanes[LANES];
  vf_store(lanes, v);
  memcpy(p, lanes, n * sizeof(float));
}

// The arguments of `quantize`, for a group of n columns, 1...32; returns the scale and the sum of q.
INLINE float quantize_group(const float *x, size_t n, int8_t *q, int32_t *sum) {
  enum { COUNT = GROUP_COLUMNS / LANES };
  float padded[GROUP_COLUMNS];
  if (n < GROUP_COLUMNS) {
    memset(padded, 0, sizeof padded);
    memcpy(padded, x, n * sizeof(float));
    x = padded;
  }
  vf v[COUNT];
  vi magnitude = vi_zero();
  for (int i = 0; i < COUNT; i++) {
    v[i] = vf_load(x + i * LANES);
    magnitude = vi_max(magnitude, vi_magnitude(v[i]));
  }
  uint32_t bits = (uint32_t)vi_maximum(magnitude);
  float largest = float_from_bits(bits);
  if (bits >= 0x7f800000 || largest < 1e-30f) { // the reciprocal of what is smaller might overflow
    memset(q, 0, GROUP_COLUMNS);
    *sum = 0;
    return bits >= 0x7f800000 ? NAN : 0;
  }
  float scale = largest / 127;
#if defined(__aarch64__) // each as ggml's file for that architecture has it
  vf reciprocal = vf_set(1 / scale);
#else
  vf reciprocal = vf_set(127 / largest);
#endif
  vi total = vi_zero();
  for (int i = 0; i < COUNT; i++) {
    vi rounded = vi_round(vf_mul(v[i], reciprocal));
    vi_store_bytes(q + i * LANES, rounded);
    total = vi_add(total, rounded);
  }
  *sum = vi_sum(total);
  return scale;
}

TARGET static void quantize(const float *x, size_t columns, int8_t *q, float *scales, int32_t *sums) {
  for (size_t c = 0, g = 0; c < columns; c += GROUP_COLUMNS, g++) {
    size_t n = columns - c < GROUP_COLUMNS ? columns - c : GROUP_COLUMNS;
    scales[g] = quantize_group(x + c, n, q + c, &sums[g]);
  }
}

TARGET static void f32_to_int8(const float *x, size_t count, int8_t *q, uint16_t *scales) {
  for (size_t c = 0, g = 0; c < count; c += GROUP_COLUMNS, g++) {
    size_t n = count - c < GROUP_COLUMNS ? count - c : GROUP_COLUMNS;
    int8_t group[GROUP_COLUMNS];
    int32_t sum;
    scales[g] = half_from_float(quantize_group(x + c, n, group, &sum));
    memcpy(q + c, group, n);
  }
}

// See kernels.h: a group of a row becomes the eight quads of that row in the panel.
TARGET static void pack_rows(const float *x, size_t x_stride, uint32_t rows, uint32_t columns, uint8_t *panel) {
  const uint32_t groups = (columns + GROUP_COLUMNS - 1) / GROUP_COLUMNS;
  memset(panel, 0, panel_bytes(SQUINT_INT8, groups));
  for (uint32_t g = 0; g < groups; g++) {
    const panel_group place = group_place(SQUINT_INT8, groups, g);
    const size_t n = columns - g * GROUP_COLUMNS < GROUP_COLUMNS ? columns - g * GROUP_COLUMNS : GROUP_COLUMNS;
    uint16_t *scales = (uint16_t *)(panel + place.header) + PANEL_ROWS * place.index;
    for (uint32_t r = 0; r < rows; r++) {
      int8_t q[GROUP_COLUMNS];
      int32_t sum;
      scales[r] = half_from_float(quantize_group(x + r * x_stride + g * GROUP_COLUMNS, n, q, &sum));
      for (int i = 0; i < GROUP_COLUMNS; i++)
        panel[place.weights + 64 * (i / 4) + 4 * r + i % 4] = (uint8_t)(q[i] + 128);
    }
  }
}

// See kernels.h: a lane for each row of the panel.
TARGET static void pack_columns(const float *x, size_t x_stride, uint32_t rows, uint32_t columns, uint32_t group,
                                uint8_t *panel) {
  const panel_group place = group_place(SQUINT_INT8, (columns + GROUP_COLUMNS - 1) / GROUP_COLUMNS, group);
  const uint32_t left = columns - group * GROUP_COLUMNS, count = left < GROUP_COLUMNS ? left : GROUP_COLUMNS;
  float block[GROUP_COLUMNS][PANEL_ROWS] = {{0}};
  for (uint32_t c = 0; c < count; c++)
    memcpy(block[c], x + c * x_stride, rows * sizeof(float));
  float reciprocals[PANEL_ROWS];
  uint16_t *scales = (uint16_t *)(panel + place.header) + PANEL_ROWS * place.index;
  for (int r = 0; r < PANEL_ROWS; r += LANES) {
    vi magnitude = vi_zero();
    for (uint32_t c = 0; c < count; c++)
      magnitude = vi_max(magnitude, vi_magnitude(vf_load(&block[c][r])));
    int32_t bits[LANES];
    memcpy(bits, &magnitude, sizeof bits);
    for (int i = 0; i < LANES; i++) { // as quantize_group
      const float largest = float_from_bits((uint32_t)bits[i]);
      const bool is_finite = bits[i] < 0x7f800000, is_zero = largest < 1e-30f;
      scales[r + i] = half_from_float(is_finite ? is_zero ? 0 : largest / 127 : NAN);
      reciprocals[r + i] = is_finite && !is_zero ? 127 / largest : 0;
    }
  }
  for (int quad = 0; quad < GROUP_COLUMNS / 4; quad++) {
    int8_t q[4][PANEL_ROWS];
    for (int k = 0; k < 4; k++)
      for (int r = 0; r < PANEL_ROWS; r += LANES)
        vi_store_bytes(&q[k][r], vi_round(vf_mul(vf_load(&block[4 * quad + k][r]), vf_load(reciprocals + r))));
    for (int r = 0; r < PANEL_ROWS; r++)
      for (int k = 0; k < 4; k++)
        panel[place.weights + 64 * quad + 4 * r + k] = (uint8_t)(q[k][r] + 128);
  }
}

// Numbers of a plain type, or int8 without its scale, as floats: LANES of them, or the first n and then zeros.
INLINE vf load_as_float(const uint32_t type, const void *p) {
  return type == SQUINT_F32    ? vf_load((const float *)p)
         : type == SQUINT_F16  ? vf_load_half((const uint16_t *)p)
         : type == SQUINT_BF16 ? vf_load_bfloat((const uint16_t *)p)
                               : vf_load_signed_bytes((const int8_t *)p);
}
INLINE size_t element_bytes(const uint32_t type) { return type == SQUINT_F32 ? 4 : type == SQUINT_INT8 ? 1 : 2; }
INLINE vf load_part_as_float(const uint32_t type, const void *p, size_t n) {
  union {
    float words[LANES];
    uint16_t halves[LANES];
    int8_t bytes[LANES];
  } lanes = {{0}};
  memcpy(&lanes, p, n * element_bytes(type));
  return load_as_float(type, &lanes);
}

INLINE void convert(const uint32_t type, const void *x, float *y, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    vf_store(y + i, load_as_float(type, (const uint8_t *)x + i * element_bytes(type)));
  if (i < count)
    vf_store_part(y + i, load_part_as_float(type, (const uint8_t *)x + i * element_bytes(type), count - i), count - i);
}
TARGET static void f16_to_f32(const uint16_t *x, float *y, size_t count) { convert(SQUINT_F16, x, y, count); }
TARGET static void bf16_to_f32(const uint16_t *x, float *y, size_t count) { convert(SQUINT_BF16, x, y, count); }

TARGET static void f32_to_f16(const float *x, uint16_t *y, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    vf_store_half(y + i, vf_load(x + i));
  if (i < count) {
    uint16_t lanes[LANES];
    vf_store_half(lanes, vf_load_part(x + i, count - i));
    memcpy(y + i, lanes, (count - i) * sizeof(uint16_t));
  }
}

// exp(x) by exp(n·ln 2 + r) = 2^n · exp(r), |r| <= ln 2 / 2, with the first terms of exp's own series corrected to the
// minimax polynomial of degree 5 for (exp(r) - 1 - r) / r² (Cephes' expf has the same shape). x is clamped to a range
// in which 2^n is a normal number.
INLINE vf vf_exponential(vf x) {
  x = vf_max(vf_set(-87.33f), vf_min(vf_set(88.37f), x));
  vf n = vf_round(vf_mul(x, vf_set(1.44269504088896341f)));
  vf r = vf_fma(n, vf_set(-0x1.63p-1f), x); // ln 2 in two parts; the first times n is exact
  r = vf_fma(n, vf_set(0x1.bd0106p-13f), r);
  vf p = vf_set(1.9875691500e-4f);
  p = vf_fma(p, r, vf_set(1.3981999507e-3f));
  p = vf_fma(p, r, vf_set(8.3334519073e-3f));
  p = vf_fma(p, r, vf_set(4.1665795894e-2f));
  p = vf_fma(p, r, vf_set(1.6666665459e-1f));
  p = vf_fma(p, r, vf_set(5.0000001201e-1f));
  p = vf_add(vf_fma(vf_mul(p, r), r, r), vf_set(1));
  return vf_scale(p, n);
}

// 2^x for x <= 0, by the polynomial of degree 5 with the least largest relative error, 2^-23 before rounding, on
// -1/2...1/2. x is clamped to -126, where 2^x is a normal number still.
INLINE vf vf_power_of_2(vf x) {
  x = vf_max(vf_set(-126), x);
  // A number beside which integers are the last bits: rounds, and leaves n in the bits.
  const vf magic = vf_set(0x1.8p23f), shifted = vf_add(x, magic), r = vf_sub(x, vf_sub(shifted, magic));
  vf p = vf_set(0x1.5bba1ap-10f);
  p = vf_fma(p, r, vf_set(0x1.3cea88p-7f));
  p = vf_fma(p, r, vf_set(0x1.c6b752p-5f));
  p = vf_fma(p, r, vf_set(0x1.ebf9bcp-3f));
  p = vf_fma(p, r, vf_set(0x1.62e42ap-1f));
  return vf_add_to_exponent(vf_fma(p, r, vf_set(1)), shifted);
}

TARGET static void exponential(const float *x, float *y, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    vf_store(y + i, vf_exponential(vf_load(x + i)));
  if (i < count)
    vf_store_part(y + i, vf_exponential(vf_load_part(x + i, count - i)), count - i);
}

// x = exp(x - maximum); returns the sum
INLINE float exponential_in_place(float *x, size_t count, float maximum) {
  vf sum = vf_set(0);
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    vf e = vf_exponential(vf_sub(vf_load(x + i), vf_set(maximum)));
    vf_store(x + i, e);
    sum = vf_add(sum, e);
  }
  float total = vf_sum(sum);
  if (i < count) {
    vf_store_part(x + i, vf_exponential(vf_sub(vf_load_part(x + i, count - i), vf_set(maximum))), count - i);
    for (; i < count; i++)
      total += x[i];
  }
  return total;
}

INLINE float maximum_of(const float *x, size_t count) {
  float largest = x[0];
  size_t i = 0;
  if (count >= LANES) {
    vf v = vf_load(x);
    for (i = LANES; i + LANES <= count; i += LANES)
      v = vf_max(v, vf_load(x + i));
    largest = vf_maximum(v);
  }
  for (; i < count; i++)
    largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// The weights 2^(factor · x - maximum) of a group, in 0...1, as (high + low / 254) / 127. Adds them to sum; the others
// are the sums of high and low.
INLINE void soften_group(const float *x, vf factor, vf maximum, int8_t *high, int8_t *low, vf *sum, vf *high_sum,
                         vf *low_sum) {
  *high_sum = *low_sum = vf_set(0);
#pragma GCC unroll 8
  for (int i = 0; i < GROUP_COLUMNS; i += LANES) {
    const vf weight = vf_power_of_2(vf_sub(vf_mul(vf_load(x + i), factor), maximum));
    // What is no number becomes one; the sum stays none.
    const vf units = vf_min(vf_mul(weight, vf_set(127)), vf_set(127));
    const vi whole = vi_round(units);
    const vf rest = vf_sub(units, vf_from_int(whole));
    // At most a half is left out, which becomes 127.
    const vi part = vi_round(vf_mul(rest, vf_set(254)));
    vi_store_bytes(high + i, whole);
    vi_store_bytes(low + i, part);
    *sum = vf_add(*sum, weight);
    *high_sum = vf_add(*high_sum, vf_from_int(whole));
    *low_sum = vf_add(*low_sum, vf_from_int(part));
  }
}

// See kernels.h. The weights are divided by their sum in the scales.
TARGET static void softmax(const float *x, size_t count, float scale, squint_rounded high, squint_rounded low) {
  const vf factor = vf_set(scale * 1.44269504088896341f); // log2(e)
  const vf maximum = vf_mul(factor, vf_set(maximum_of(x, count)));
  const size_t groups = (count + GROUP_COLUMNS - 1) / GROUP_COLUMNS;
  vf sum = vf_set(0);
  for (size_t g = 0; g < groups; g += 2) {
    // The sums of two groups, high and low, are added up together.
    vf sums[4] = {vf_set(0), vf_set(0), vf_set(0), vf_set(0)};
    float last[2 * GROUP_COLUMNS], totals[4];
    const size_t c = g * GROUP_COLUMNS;
    const float *from = x + c;
    if (count - c < 2 * GROUP_COLUMNS) { // beyond the end are weights of zero
      for (size_t i = 0; i < 2 * GROUP_COLUMNS; i++)
        last[i] = i < count - c ? from[i] : -INFINITY;
      from = last;
    }
    soften_group(from, factor, maximum, high.q + c, low.q + c, &sum, &sums[0], &sums[1]);
    if (g + 1 < groups)
      soften_group(from + GROUP_COLUMNS, factor, maximum, high.q + c + GROUP_COLUMNS, low.q + c + GROUP_COLUMNS, &sum,
                   &sums[2], &sums[3]);
    vf_sum4(sums, totals);
    for (size_t i = 0; i < 2 && g + i < groups; i++) {
      high.sums[g + i] = (int32_t)totals[2 * i];
      low.sums[g + i] = (int32_t)totals[2 * i + 1];
    }
  }
  const float unit = 1 / (127 * vf_sum(sum));
  for (size_t g = 0; g < groups; g++) {
    high.scales[g] = unit;
    low.scales[g] = unit / 254;
  }
}

TARGET static void rms_norm(const float *x, const float *weight, float *y, size_t count, float epsilon) {
  vf squares = vf_set(0), more = vf_set(0);
  size_t i = 0;
  for (; i + 2 * LANES <= count; i += 2 * LANES) {
    vf a = vf_load(x + i), b = vf_load(x + i + LANES);
    squares = vf_fma(a, a, squares);
    more = vf_fma(b, b, more);
  }
  float sum = vf_sum(vf_add(squares, more));
  for (; i < count; i++)
    sum += x[i] * x[i];
  float scale = 1 / sqrtf(sum / (float)count + epsilon);
  for (i = 0; i + LANES <= count; i += LANES)
    vf_store(y + i, vf_mul(vf_mul(vf_load(x + i), vf_set(scale)), vf_load(weight + i)));
  for (; i < count; i++)
    y[i] = x[i] * scale * weight[i];
}

TARGET static void layer_norm(const float *x, const float *weight, const float *bias, float *y, size_t count,
                              float epsilon) {
  vf total = vf_set(0), more = vf_set(0);
  size_t i = 0;
  for (; i + 2 * LANES <= count; i += 2 * LANES) {
    total = vf_add(total, vf_load(x + i));
    more = vf_add(more, vf_load(x + i + LANES));
  }
  float sum = vf_sum(vf_add(total, more));
  for (; i < count; i++)
    sum += x[i];
  const float rounded = sum / (float)count;
  // What the deviations sum to is the rounding error of that mean, which matters where it is far from zero.
  vf deviations = vf_set(0), squares = vf_set(0);
  for (i = 0; i + LANES <= count; i += LANES) {
    vf d = vf_sub(vf_load(x + i), vf_set(rounded));
    deviations = vf_add(deviations, d);
    squares = vf_fma(d, d, squares);
  }
  float deviation = vf_sum(deviations), square = vf_sum(squares);
  for (; i < count; i++) {
    float d = x[i] - rounded;
    deviation += d;
    square += d * d;
  }
  const float error = deviation / (float)count;
  const float variance = square / (float)count - error * error;
  const float scale = 1 / sqrtf((variance > 0 ? variance : 0) + epsilon);
  for (i = 0; i + LANES <= count; i += LANES) {
    vf normal = vf_mul(vf_sub(vf_sub(vf_load(x + i), vf_set(rounded)), vf_set(error)), vf_set(scale));
    vf_store(y + i, vf_fma(normal, vf_load(weight + i), vf_load(bias + i)));
  }
  for (; i < count; i++)
    y[i] = (x[i] - rounded - error) * scale * weight[i] + bias[i];
}

TARGET static void rotary(float *x, size_t heads, size_t head_stride, size_t pairs, const float *cosines,
                          const float *sines) {
  for (size_t h = 0; h < heads; h++, x += head_stride) {
    float *a = x, *b = x + pairs;
    size_t i = 0;
    for (; i + LANES <= pairs; i += LANES) {
      vf va = vf_load(a + i), vb = vf_load(b + i), c = vf_load(cosines + i), s = vf_load(sines + i);
      vf_store(a + i, vf_sub(vf_mul(va, c), vf_mul(vb, s)));
      vf_store(b + i, vf_fma(vb, c, vf_mul(va, s)));
    }
    for (; i < pairs; i++) {
      float fa = a[i], fb = b[i];
      a[i] = fa * cosines[i] - fb * sines[i];
      b[i] = fb * cosines[i] + fa * sines[i];
    }
  }
}

// The first 16 rows and columns of Sylvester's matrix, in which the smaller ones are.
#define SIGN(i, j) (__builtin_parity((i) & (j)) ? -1.f : 1.f)
#define SIGNS_4(i, j) SIGN(i, j), SIGN(i, (j) + 1), SIGN(i, (j) + 2), SIGN(i, (j) + 3)
#define SIGNS(i)                                                                                                       \
  { SIGNS_4(i, 0), SIGNS_4(i, 4), SIGNS_4(i, 8), SIGNS_4(i, 12) }
static const float sylvester[16][16] = {SIGNS(0),  SIGNS(1),  SIGNS(2),  SIGNS(3), SIGNS(4),  SIGNS(5),
                                        SIGNS(6),  SIGNS(7),  SIGNS(8),  SIGNS(9), SIGNS(10), SIGNS(11),
                                        SIGNS(12), SIGNS(13), SIGNS(14), SIGNS(15)};
#undef SIGNS
#undef SIGNS_4
#undef SIGN

// Within a vector by its matrix, and from vector to vector by sums and differences.
INLINE void hadamard_run(float *x, size_t n) {
  const float scale = 1 / sqrtf((float)n);
  if (n < LANES) {
    for (size_t step = 1; step < n; step *= 2)
      for (size_t i = 0; i < n; i++)
        if (!(i & step)) {
          const float a = x[i], b = x[i + step];
          x[i] = a + b;
          x[i + step] = a - b;
        }
    for (size_t i = 0; i < n; i++)
      x[i] *= scale;
    return;
  }
  for (size_t i = 0; i < n; i += LANES) {
    vf sum = vf_set(0);
    for (int k = 0; k < LANES; k++)
      sum = vf_fma(vf_set(x[i + k] * scale), vf_load(sylvester[k]), sum);
    vf_store(x + i, sum);
  }
  for (size_t step = LANES; step < n; step *= 2)
    for (size_t start = 0; start < n; start += 2 * step)
      for (size_t i = start; i < start + step; i += LANES) {
        const vf a = vf_load(x + i), b = vf_load(x + i + step);
        vf_store(x + i, vf_add(a, b));
        vf_store(x + i + step, vf_sub(a, b));
      }
}

TARGET static void hadamard(float *x, size_t heads, size_t head_stride, size_t width) {
  const size_t n = width & (~width + 1);
  for (size_t h = 0; n > 1 && h < heads; h++, x += head_stride)
    for (size_t i = 0; i < width; i += n)
      hadamard_run(x + i, n);
}

// x · sigmoid(s)
INLINE vf times_sigmoid(vf x, vf s) { return vf_div(x, vf_add(vf_set(1), vf_exponential(vf_sub(vf_set(0), s)))); }

INLINE vf silu_product(vf gate, vf up) { return vf_mul(times_sigmoid(gate, gate), up); }

TARGET static void silu_multiply(const float *gate, const float *up, float *y, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    vf_store(y + i, silu_product(vf_load(gate + i), vf_load(up + i)));
  if (i < count)
    vf_store_part(y + i, silu_product(vf_load_part(gate + i, count - i), vf_load_part(up + i, count - i)), count - i);
}

// x/2 · (1 + erf(x/√2)) = max(x, 0) - |x|/2 · erfc(|x|/√2), and erfc(z) = exp(-z²) · t · P(t) with t = 1 / (1 + 0.4 z),
// the form of Abramowitz & Stegun 7.1.26. P was fitted for the least largest error of the whole, 2^-27 before rounding.
// Beyond 30 the second term is nothing.
INLINE vf gelu_of(vf x) {
  const vf magnitude = vf_min(vf_set(30), vf_max(vf_sub(vf_set(0), x), x));
  const vf z = vf_mul(magnitude, vf_set(0.70710678118654752f));
  const vf t = vf_div(vf_set(1), vf_fma(vf_set(0.4f), z, vf_set(1)));
  vf p = vf_set(-0.2069207989981523f);
  p = vf_fma(p, t, vf_set(0.7358950036208909f));
  p = vf_fma(p, t, vf_set(-0.41360483360695155f));
  p = vf_fma(p, t, vf_set(0.5021364041431827f));
  p = vf_fma(p, t, vf_set(0.14848398128741008f));
  p = vf_fma(p, t, vf_set(0.23400977387318195f));
  const vf tail = vf_mul(vf_mul(p, t), vf_exponential(vf_sub(vf_set(0), vf_mul(z, z))));
  return vf_fma(vf_mul(magnitude, vf_set(-0.5f)), tail, vf_max(vf_set(0), x));
}

// x/2 · (1 + tanh(u)) = x · sigmoid(2u), u = √(2/π) · (x + 0.044715 x³)
INLINE vf gelu_tanh_of(vf x) {
  const vf inner = vf_fma(vf_mul(vf_mul(x, x), vf_set(0.044715f)), x, x);
  return times_sigmoid(x, vf_mul(inner, vf_set(1.5957691216057308f)));
}
INLINE vf quick_gelu_of(vf x) { return times_sigmoid(x, vf_mul(x, vf_set(1.702f))); }
INLINE vf relu_of(vf x) { return vf_max(vf_set(0), x); }
INLINE vf silu_of(vf x) { return times_sigmoid(x, x); }

#define ACTIVATION(name)                                                                                               \
  TARGET static void name(float *x, size_t count) {                                                                    \
    size_t i = 0;                                                                                                      \
    for (; i + LANES <= count; i += LANES)                                                                             \
      vf_store(x + i, name##_of(vf_load(x + i)));                                                                      \
    if (i < count)                                                                                                     \
      vf_store_part(x + i, name##_of(vf_load_part(x + i, count - i)), count - i);                                      \
  }
ACTIVATION(gelu)
ACTIVATION(gelu_tanh)
ACTIVATION(quick_gelu)
ACTIVATION(relu)
ACTIVATION(silu)
#undef ACTIVATION

TARGET static void add(const float *x, const float *other, float *y, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    vf_store(y + i, vf_add(vf_load(x + i), vf_load(other + i)));
  for (; i < count; i++)
    y[i] = x[i] + other[i];
}

TARGET static void multiply(const float *x, const float *other, float *y, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES)
    vf_store(y + i, vf_mul(vf_load(x + i), vf_load(other + i)));
  for (; i < count; i++)
    y[i] = x[i] * other[i];
}
