// The quantized product, written in the vector vocabulary and these hooks of the instruction set:
//
//   PRODUCT_TILE           tokens in the register tile, at most 8
//   PANEL_TILE             panels in the register tile
//   ZERO_POINT_IN_DOT      1 where the integer dot products of int8 weights take u - 128, 0 where they take u
//   COPIES_INT8            1 where unpack_group rearranges int8 weights, 0 where the tile reads them in place
//   dot_group              integer dot products of 16 rows of packed weights with one token, over one group
//   unpack_group           the group's weights as the tile wants them: GROUP_BYTES bytes
//   dot_tile               the same products of m panels with n tokens, from unpacked weights
#define VECTORS (PANEL_ROWS / LANES) // that hold one number for each row of a panel

// Scales and offsets of a block: w = scale · (what the dot product takes) + offset, in int8 without an offset: there
// the zero point is taken out of the integers.
typedef struct {
  float scale[MAXIMUM_BLOCK_GROUPS][PANEL_ROWS];
  float offset[MAXIMUM_BLOCK_GROUPS][PANEL_ROWS];
} block_header;

INLINE void decode_header(const uint32_t type, const uint8_t *bytes, uint32_t groups, block_header *header) {
  typedef uint8_t bytes16 __attribute__((vector_size(16)));
  const uint16_t *halves = (const uint16_t *)bytes;
  for (uint32_t g = 0; g < groups; g++) {
    bytes16 scales6, minimums6;
    if (type == SQUINT_INT4) {
      const uint8_t *packed = bytes + 64 + 24 * (size_t)g;
      bytes16 low, high;
      uint64_t eight;
      memcpy(&low, packed, 16);
      memcpy(&eight, packed + 16, 8);
      uint64_t both[2] = {eight, eight >> 4 & 0x0f0f0f0f0f0f0f0f};
      memcpy(&high, both, 16);
      scales6 = (low & 15) | (high & 3) << 4;
      minimums6 = low >> 4 | (high & 12) << 2;
    }
    for (int v = 0; v < VECTORS; v++) {
      float *scale = &header->scale[g][v * LANES], *offset = &header->offset[g][v * LANES];
      switch ((panel_type)type) {
      case panel_int8:
        vf_store(scale, vf_load_half(halves + PANEL_ROWS * g + v * LANES));
        break;
      case panel_int4_f16:
        vf_store(scale, vf_load_half(halves + 2 * PANEL_ROWS * g + v * LANES));
        vf_store(offset, vf_load_half(halves + 2 * PANEL_ROWS * g + PANEL_ROWS + v * LANES));
        break;
      case panel_int4: {
        vf d = vf_load_half(halves + v * LANES), dmin = vf_load_half(halves + PANEL_ROWS + v * LANES);
        vf_store(scale, vf_mul(d, vf_load_unsigned_bytes((const uint8_t *)&scales6 + v * LANES)));
        vf minimum = vf_mul(dmin, vf_load_unsigned_bytes((const uint8_t *)&minimums6 + v * LANES));
        vf_store(offset, vf_sub(vf_set(0), minimum));
        break;
      }
      }
    }
  }
}

// What a group of activations, of which x_sum is the sum, adds to the integer dot product for the zero point of int8.
INLINE int32_t zero_point_term(const uint32_t type, int32_t x_sum) {
  return type == SQUINT_INT8 && !ZERO_POINT_IN_DOT ? -128 * x_sum : 0;
}

// acc += scale · x_scale · (dot + zero) + offset · x_sum
INLINE vf add_group(const uint32_t type, vf acc, vi dot, const float *scale, const float *offset, vf x_scale, vi zero,
                    vf x_sum) {
  if (type == SQUINT_INT8 && !ZERO_POINT_IN_DOT)
    dot = vi_add(dot, zero);
  acc = vf_fma(vf_from_int(dot), vf_mul(vf_load(scale), x_scale), acc);
  return type == SQUINT_INT8 ? acc : vf_fma(vf_load(offset), x_sum, acc);
}

// Writes the numbers of one panel for one token, but none beyond row rows - 1.
INLINE void write_rows(const squint_product *p, uint32_t panel, uint32_t token, const float *values) {
  float *y = p->y + token * p->y_stride + (size_t)panel * PANEL_ROWS;
  uint32_t rows = p->rows - panel * PANEL_ROWS;
  if (rows >= PANEL_ROWS) {
    for (int v = 0; v < VECTORS; v++) {
      vf value = vf_load(values + v * LANES);
      vf_store(y + v * LANES, p->accumulate ? vf_add(vf_load(y + v * LANES), value) : value);
    }
  } else {
    for (uint32_t r = 0; r < rows; r++)
      y[r] = p->accumulate ? y[r] + values[r] : values[r];
  }
}

// Weights are asked for this many bytes before their turn, which the hardware's own prefetchers do not do across pages:
// int4 streams 10 to 20 % faster with it on a Xeon, int8 as before. Beyond the end nothing happens.
enum { PREFETCH_DISTANCE = 4096 };

// One token (decode): the weights stream from memory through the registers, once.
INLINE void product_of_one(const uint32_t type, const squint_product *p, uint32_t first_panel, uint32_t panels) {
  const size_t bytes_per_panel = panel_bytes(type, p->groups);
  const uint32_t blocks = panel_blocks(p->groups);
  for (uint32_t panel = first_panel; panel < first_panel + panels; panel++) {
    const uint8_t *block = p->weights + panel * bytes_per_panel;
    vf acc[VECTORS];
    for (int v = 0; v < VECTORS; v++)
      acc[v] = vf_set(0);
    for (uint32_t b = 0, group = 0; b < blocks; b++) {
      uint32_t groups = groups_in_block(p->groups, b);
      const uint8_t *weights = block + header_bytes(type, groups);
      block_header header;
      decode_header(type, block, groups, &header);
      for (uint32_t g = 0; g < groups; g++, group++, weights += group_bytes(type)) {
        for (size_t i = 0; i < group_bytes(type); i += 64)
          __builtin_prefetch(weights + PREFETCH_DISTANCE + i);
        vi dot[VECTORS];
        dot_group(type, weights, p->x + (size_t)group * GROUP_COLUMNS, dot);
        const vf x_scale = vf_set(p->x_scales[group]);
        const vf x_sum = vf_set(p->x_scales[group] * (float)p->x_sums[group]);
        const vi zero = vi_set(zero_point_term(type, p->x_sums[group]));
        for (int v = 0; v < VECTORS; v++)
          acc[v] = add_group(type, acc[v], dot[v], &header.scale[g][v * LANES], &header.offset[g][v * LANES], x_scale,
                             zero, x_sum);
      }
      block = weights;
    }
    float values[PANEL_ROWS];
    for (int v = 0; v < VECTORS; v++)
      vf_store(values + v * LANES, acc[v]);
    write_rows(p, panel, 0, values);
  }
}

// What the sums of activations are multiplied with: see add_group.
INLINE void term_of_sums(const uint32_t type, const uint32_t groups, const float *x_scales, const int32_t *x_sums,
                         int32_t *zeros, float *scaled_sums) {
  for (uint32_t g = 0; g < groups; g++) {
    zeros[g] = zero_point_term(type, x_sums[g]);
    scaled_sums[g] = x_scales[g] * (float)x_sums[g];
  }
}

// sums[n][m][16] += the products of one block of m panels with n tokens; x_scales and x_sums
// point at the block's first group.
INLINE void add_tile(const int n, const int m, const uint32_t type, const uint8_t *weights, size_t weight_stride,
                     const block_header *headers, uint32_t groups, const int8_t *x, size_t x_stride,
                     const float *x_scales, const int32_t *x_sums, size_t scale_stride, float *sums) {
  vf acc[PRODUCT_TILE][PANEL_TILE * VECTORS];
  int32_t zeros[PRODUCT_TILE][MAXIMUM_BLOCK_GROUPS];
  float scaled_sums[PRODUCT_TILE][MAXIMUM_BLOCK_GROUPS];
  for (int t = 0; t < n; t++) {
    for (int v = 0; v < m * VECTORS; v++)
      acc[t][v] = vf_load(sums + t * PANEL_TILE * PANEL_ROWS + v * LANES);
    // A number of groups that the compiler knows, for vectors, and those beyond it.
    const uint32_t whole = groups < BLOCK_GROUPS ? 0 : BLOCK_GROUPS;
    if (whole > 0)
      term_of_sums(type, BLOCK_GROUPS, x_scales + t * scale_stride, x_sums + t * scale_stride, zeros[t],
                   scaled_sums[t]);
    term_of_sums(type, groups - whole, x_scales + t * scale_stride + whole, x_sums + t * scale_stride + whole,
                 zeros[t] + whole, scaled_sums[t] + whole);
  }
  for (uint32_t g = 0; g < groups; g++) {
    vi dot[PRODUCT_TILE][PANEL_TILE * VECTORS];
    dot_tile(n, m, type == SQUINT_INT8, weights + (size_t)g * GROUP_BYTES, weight_stride, x + g * GROUP_COLUMNS,
             x_stride, dot);
    for (int t = 0; t < n; t++) {
      const vf x_scale = vf_set(x_scales[t * scale_stride + g]), x_sum = vf_set(scaled_sums[t][g]);
      const vi zero = vi_set(zeros[t][g]);
      for (int v = 0; v < m * VECTORS; v++)
        acc[t][v] = add_group(type, acc[t][v], dot[t][v], &headers[v / VECTORS].scale[g][v % VECTORS * LANES],
                              &headers[v / VECTORS].offset[g][v % VECTORS * LANES], x_scale, zero, x_sum);
    }
  }
  for (int t = 0; t < n; t++)
    for (int v = 0; v < m * VECTORS; v++)
      vf_store(sums + t * PANEL_TILE * PANEL_ROWS + v * LANES, acc[t][v]);
}

// m panels with a chunk of tokens, as many as a prefill's. A block of weights is unpacked once for all of them, whose
// activations stay in the second-level cache while the panels pass by.
enum { TOKEN_CHUNK = 132 };
INLINE void product_of_panels(const int m, const uint32_t type, const squint_product *p, uint32_t panel, uint32_t first,
                              uint32_t chunk) {
  const size_t bytes_per_panel = panel_bytes(type, p->groups), x_stride = (size_t)p->groups * GROUP_COLUMNS;
  const uint32_t blocks = panel_blocks(p->groups);
  const bool unpacks = type != SQUINT_INT8 || COPIES_INT8;
  float sums[TOKEN_CHUNK * PANEL_TILE * PANEL_ROWS] __attribute__((aligned(64)));
  uint8_t unpacked[PANEL_TILE][MAXIMUM_BLOCK_GROUPS * GROUP_BYTES] __attribute__((aligned(64)));
  block_header headers[PANEL_TILE] __attribute__((aligned(64)));
  memset(sums, 0, chunk * sizeof sums[0] * PANEL_TILE * PANEL_ROWS);
  const uint8_t *block = p->weights + panel * bytes_per_panel;
  for (uint32_t b = 0; b < blocks; b++) {
    const uint32_t groups = groups_in_block(p->groups, b);
    const uint8_t *weights = block + header_bytes(type, groups);
    for (int i = 0; i < m; i++) {
      decode_header(type, block + i * bytes_per_panel, groups, &headers[i]);
      if (unpacks)
        for (uint32_t g = 0; g < groups; g++)
          unpack_group(type, weights + i * bytes_per_panel + g * group_bytes(type),
                       unpacked[i] + (size_t)g * GROUP_BYTES);
    }
    const size_t weight_stride = unpacks ? sizeof unpacked[0] : bytes_per_panel;
    if (unpacks)
      weights = unpacked[0];
    block += block_bytes(type, groups);
    // What comes next is fetched while all tokens pass by. Beyond the end nothing happens.
    const bool is_last = b + 1 == blocks;
    const uint8_t *next = is_last ? p->weights + (panel + m) * bytes_per_panel : block;
    const size_t next_bytes = block_bytes(type, groups_in_block(p->groups, is_last ? 0 : b + 1));
    for (int i = 0; i < m; i++)
      for (size_t at = 0; at < next_bytes; at += 64)
        __builtin_prefetch(next + i * bytes_per_panel + at);
    const size_t column = (size_t)b * BLOCK_GROUPS;
    uint32_t t = 0;
#define TILE(n)                                                                                                        \
  add_tile(                                                                                                            \
      n, m, type, weights, weight_stride, headers, groups, p->x + (first + t) * x_stride + column * GROUP_COLUMNS,     \
      x_stride, p->x_scales + (size_t)(first + t) * p->groups + column,                                                \
      p->x_sums + (size_t)(first + t) * p->groups + column, p->groups, sums + (size_t)t * PANEL_TILE * PANEL_ROWS)
    for (; t + PRODUCT_TILE <= chunk; t += PRODUCT_TILE)
      TILE(PRODUCT_TILE);
#if PRODUCT_TILE > 4
    if ((chunk - t) & 4) {
      TILE(4);
      t += 4;
    }
#endif
#if PRODUCT_TILE > 2
    if ((chunk - t) & 2) {
      TILE(2);
      t += 2;
    }
#endif
    if ((chunk - t) & 1)
      TILE(1);
#undef TILE
  }
  for (uint32_t t = 0; t < chunk; t++)
    for (int i = 0; i < m; i++)
      write_rows(p, panel + i, first + t, sums + (size_t)(t * PANEL_TILE + i) * PANEL_ROWS);
}

// Several tokens (prefill).
INLINE void product_of_many(const uint32_t type, const squint_product *p, uint32_t first_panel, uint32_t panels) {
  // Chunks of equal size: a rest of few tokens would pay for the unpacking of all weights.
  const uint32_t chunks = (p->tokens + TOKEN_CHUNK - 1) / TOKEN_CHUNK;
  for (uint32_t c = 0, first = 0; c < chunks; c++) {
    const uint32_t chunk = (p->tokens - first + chunks - c - 1) / (chunks - c);
    uint32_t panel = first_panel;
    for (; panel + PANEL_TILE <= first_panel + panels; panel += PANEL_TILE)
      product_of_panels(PANEL_TILE, type, p, panel, first, chunk);
    for (; PANEL_TILE > 1 && panel < first_panel + panels; panel++)
      product_of_panels(1, type, p, panel, first, chunk);
    first += chunk;
  }
}

#define PRODUCT_FUNCTIONS(name, type, group, header)                                                                   \
  TARGET static void one_##name(const squint_product *p, uint32_t first_panel, uint32_t panels) {                      \
    product_of_one(type, p, first_panel, panels);                                                                      \
  }                                                                                                                    \
  TARGET static void many_##name(const squint_product *p, uint32_t first_panel, uint32_t panels) {                     \
    product_of_many(type, p, first_panel, panels);                                                                     \
  }
PANEL_TYPES(PRODUCT_FUNCTIONS)

static void product(const squint_product *p, uint32_t first_panel, uint32_t panels) {
  switch (p->type) {
#define PRODUCT_CASE(name, type, group, header)                                                                        \
  case type:                                                                                                           \
    return (p->tokens == 1 ? one_##name : many_##name)(p, first_panel, panels);
    PANEL_TYPES(PRODUCT_CASE)
  }
}

// See kernels.h.
TARGET static uint64_t repeat_dots(const uint8_t *weights, const int8_t *x, uint32_t repeats) {
  vi total[PRODUCT_TILE][PANEL_TILE * VECTORS] = {0};
  for (uint32_t i = 0; i < repeats; i++) {
    // The operands may have changed, and the panels be several, as far as the compiler can tell.
    size_t stride = 0;
    __asm__ volatile("" : "+r"(weights), "+r"(x), "+r"(stride)::"memory");
    vi dot[PRODUCT_TILE][PANEL_TILE * VECTORS];
    dot_tile(PRODUCT_TILE, PANEL_TILE, true, weights, stride, x, GROUP_COLUMNS, dot);
    for (int t = 0; t < PRODUCT_TILE; t++)
      for (int v = 0; v < PANEL_TILE * VECTORS; v++)
        total[t][v] = vi_add(total[t][v], dot[t][v]);
  }
  __asm__ volatile("" ::"m"(total)); // the results are needed
  return (uint64_t)repeats * 2 * GROUP_BYTES * PRODUCT_TILE * PANEL_TILE;
}
