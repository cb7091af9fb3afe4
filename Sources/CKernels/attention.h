// Attention with the running softmax, in the vector vocabulary: for a block of query rows (token, head), tile by tile
// of positions: scores = q·Kᵀ, weights = exp(scores - maximum), out = factor · out + weights·V.

// A tile of the cache as floats: [count][dim], dim being head_dim rounded up with zeros; zero rows up to a multiple of 4.
INLINE void load_tile(const uint32_t type, const void *rows, const uint16_t *scales, const squint_attention *a,
                      size_t first, size_t count, size_t dim, float *tile) {
  for (size_t p = 0; p < count; p++, tile += dim) {
    const uint8_t *row = (const uint8_t *)rows + (first + p) * a->kv_stride * element_bytes(type);
    const uint16_t *row_scales = type == SQUINT_INT8 ? scales + (first + p) * a->scale_stride : NULL;
    for (size_t d = 0; d < dim; d += LANES) {
      vf v = vf_set(0);
      if (d + LANES <= a->head_dim)
        v = load_as_float(type, row + d * element_bytes(type));
      else if (d < a->head_dim)
        v = load_part_as_float(type, row + d * element_bytes(type), a->head_dim - d);
      if (type == SQUINT_INT8 && d < a->head_dim)
        v = vf_mul(v, vf_set(half_to_float(row_scales[d / GROUP_COLUMNS])));
      vf_store(tile + d, v);
    }
  }
  memset(tile, 0, ((4 - count % 4) & 3) * dim * sizeof(float));
}

// scores[r][p] = Σ_d q[r][d] · tile[p][d] for n rows
INLINE void score_rows(const int n, const float *q, const float *tile, size_t dim, size_t count, float *scores) {
  for (size_t p = 0; p < count; p += 4) {
    const uint8_t *rows[4];
    for (size_t i = 0; i < 4; i++)
      rows[i] = (const uint8_t *)(tile + (p + i) * dim);
    float sums[DOT_TILE][4];
    dot_4(n, SQUINT_F32, rows, q, dim, dim, sums);
    for (int r = 0; r < n; r++)
      memcpy(scores + r * POSITION_TILE + p, sums[r], sizeof sums[r]);
  }
}

// out[r][d] = factors[r] · out[r][d] + Σ_p weights[r][p] · tile[p][d] for n rows and width · LANES columns
INLINE void weigh_columns(const int n, const int width, const float *weights, const float *factors, const float *tile,
                          size_t dim, size_t count, float *out) {
  vf acc[DOT_TILE][2];
  for (int r = 0; r < n; r++)
    for (int w = 0; w < width; w++)
      acc[r][w] = vf_mul(vf_load(out + r * dim + w * LANES), vf_set(factors[r]));
  for (size_t p = 0; p < count; p++) {
    vf v[2];
    for (int w = 0; w < width; w++)
      v[w] = vf_load(tile + p * dim + w * LANES);
    for (int r = 0; r < n; r++) {
      vf weight = vf_set(weights[r * POSITION_TILE + p]);
      for (int w = 0; w < width; w++)
        acc[r][w] = vf_fma(weight, v[w], acc[r][w]);
    }
  }
  for (int r = 0; r < n; r++)
    for (int w = 0; w < width; w++)
      vf_store(out + r * dim + w * LANES, acc[r][w]);
}
INLINE void weigh_rows(const int n, const float *weights, const float *factors, const float *tile, size_t dim,
                       size_t count, float *out) {
  size_t d = 0;
  for (; d + 2 * LANES <= dim; d += 2 * LANES)
    weigh_columns(n, 2, weights, factors, tile + d, dim, count, out + d);
  if (d < dim)
    weigh_columns(n, 1, weights, factors, tile + d, dim, count, out + d);
}

// Calls `function`(n, …) with n a constant, for all rows: DOT_TILE at a time, then what is left.
#define FOR_ROWS(rows, call)                                                                                           \
  for (size_t r = 0; r < (rows);) {                                                                                    \
    size_t left = (rows) - r;                                                                                          \
    if (left >= DOT_TILE) {                                                                                            \
      enum { n = DOT_TILE };                                                                                           \
      call;                                                                                                            \
      r += n;                                                                                                          \
    } else if (DOT_TILE > 3 && left == 3) {                                                                            \
      enum { n = DOT_TILE > 3 ? 3 : 1 };                                                                               \
      call;                                                                                                            \
      r += n;                                                                                                          \
    } else if (DOT_TILE > 2 && left == 2) {                                                                            \
      enum { n = DOT_TILE > 2 ? 2 : 1 };                                                                               \
      call;                                                                                                            \
      r += n;                                                                                                          \
    } else {                                                                                                           \
      enum { n = 1 };                                                                                                  \
      call;                                                                                                            \
      r += n;                                                                                                          \
    }                                                                                                                  \
  }

INLINE void attention_of_type(const uint32_t type, const squint_attention *a, uint32_t first_token, uint32_t tokens,
                              float *scratch) {
  const size_t dim = padded_head_dim(a->head_dim), rows = (size_t)tokens * a->heads;
  float *q = scratch, *out = q + ROW_BLOCK * dim, *tile = out + ROW_BLOCK * dim;
  float scores[ROW_BLOCK * POSITION_TILE], factors[ROW_BLOCK], maxima[ROW_BLOCK], sums[ROW_BLOCK];
  size_t begins[ROW_BLOCK], ends[ROW_BLOCK];
  for (size_t first_row = 0; first_row < rows; first_row += ROW_BLOCK) {
    const size_t block = rows - first_row < ROW_BLOCK ? rows - first_row : ROW_BLOCK;
    size_t begin = SIZE_MAX, end = 0;
    memset(q, 0, block * dim * sizeof(float));
    memset(out, 0, block * dim * sizeof(float));
    for (size_t r = 0; r < block; r++) {
      const size_t token = first_token + (first_row + r) / a->heads, head = (first_row + r) % a->heads;
      const float *from = a->q + token * a->q_token_stride + head * a->q_head_stride;
      size_t d = 0;
      for (; d + LANES <= a->head_dim; d += LANES)
        vf_store(q + r * dim + d, vf_mul(vf_load(from + d), vf_set(a->scale)));
      for (; d < a->head_dim; d++)
        q[r * dim + d] = from[d] * a->scale;
      begins[r] = 0;
      ends[r] = a->positions;
      if (a->causal) {
        const size_t next = a->first_position + token + 1;
        if (next < ends[r])
          ends[r] = next;
        if (a->window > 0 && next > a->window)
          begins[r] = next - a->window;
      }
      sums[r] = 0;
      maxima[r] = 0;
      if (begins[r] < ends[r]) {
        begin = begins[r] < begin ? begins[r] : begin;
        end = ends[r] > end ? ends[r] : end;
      }
    }
    for (size_t first = begin; first < end; first += POSITION_TILE) {
      const size_t count = end - first < POSITION_TILE ? end - first : POSITION_TILE;
      load_tile(type, a->k, a->k_scales, a, first, count, dim, tile);
      FOR_ROWS(block, score_rows(n, q + r * dim, tile, dim, count, scores + r * POSITION_TILE));
      for (size_t r = 0; r < block; r++) {
        float *row = scores + r * POSITION_TILE;
        const size_t from = begins[r] > first ? begins[r] - first : 0;
        const size_t to = ends[r] < first + count ? (ends[r] > first ? ends[r] - first : 0) : count;
        factors[r] = 1;
        if (from >= to) { // nothing of this tile is seen
          memset(row, 0, count * sizeof(float));
          continue;
        }
        const float tile_maximum = maximum_of(row + from, to - from);
        if (sums[r] == 0) {
          factors[r] = 0;
          maxima[r] = tile_maximum;
        } else if (tile_maximum > maxima[r]) {
          float lanes[LANES];
          vf_store(lanes, vf_exponential(vf_set(maxima[r] - tile_maximum)));
          factors[r] = lanes[0];
          maxima[r] = tile_maximum;
        }
        sums[r] = sums[r] * factors[r] + exponential_in_place(row + from, to - from, 1, maxima[r]);
        memset(row, 0, from * sizeof(float));
        memset(row + to, 0, (count - to) * sizeof(float));
      }
      load_tile(type, a->v, a->v_scales, a, first, count, dim, tile);
      FOR_ROWS(block, weigh_rows(n, scores + r * POSITION_TILE, factors + r, tile, dim, count, out + r * dim));
    }
    for (size_t r = 0; r < block; r++) {
      const size_t token = first_token + (first_row + r) / a->heads, head = (first_row + r) % a->heads;
      float *to = a->out + token * a->out_token_stride + head * a->out_head_stride;
      const float reciprocal = sums[r] == 0 ? 0 : 1 / sums[r];
      size_t d = 0;
      for (; d + LANES <= a->head_dim; d += LANES)
        vf_store(to + d, vf_mul(vf_load(out + r * dim + d), vf_set(reciprocal)));
      for (; d < a->head_dim; d++)
        to[d] = out[r * dim + d] * reciprocal;
    }
  }
}

TARGET static void attention_f32(const squint_attention *a, uint32_t first_token, uint32_t tokens, float *scratch) {
  attention_of_type(SQUINT_F32, a, first_token, tokens, scratch);
}
TARGET static void attention_f16(const squint_attention *a, uint32_t first_token, uint32_t tokens, float *scratch) {
  attention_of_type(SQUINT_F16, a, first_token, tokens, scratch);
}
TARGET static void attention_int8(const squint_attention *a, uint32_t first_token, uint32_t tokens, float *scratch) {
  attention_of_type(SQUINT_INT8, a, first_token, tokens, scratch);
}

static void attention(const squint_attention *a, uint32_t first_token, uint32_t tokens, float *scratch) {
  switch (a->kv_type) {
  case SQUINT_F32:
    return attention_f32(a, first_token, tokens, scratch);
  case SQUINT_F16:
    return attention_f16(a, first_token, tokens, scratch);
  case SQUINT_INT8:
    return attention_int8(a, first_token, tokens, scratch);
  }
}
