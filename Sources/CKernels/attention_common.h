// What attention over floats and over int8 share: tiles of the cache, blocks of query rows, and what these see of them.
#ifndef ATTENTION_COMMON_H
#define ATTENTION_COMMON_H

// A tile of the cache as floats: [count][dim], dim being head_dim rounded up with zeros; zero rows up to a multiple
// of 8.
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
  memset(tile, 0, ((8 - count % 8) & 7) * dim * sizeof(float));
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

// The softmax of few rows: scores[r][0..<count] become weights, of which from..<to are seen; updates the row's maximum
// and sum, and gives the factor by which what was summed before has to shrink.
INLINE void soften_row(float *scores, size_t from, size_t to, size_t count, float *maximum, float *sum, float *factor) {
  *factor = 1;
  if (from >= to) { // nothing of this tile is seen
    memset(scores, 0, count * sizeof(float));
    return;
  }
  const float tile_maximum = maximum_of(scores + from, to - from);
  if (tile_maximum > *maximum) {
    float lanes[LANES];
    vf_store(lanes, vf_exponential(vf_set(*maximum - tile_maximum)));
    *factor = lanes[0];
    *maximum = tile_maximum;
  }
  *sum = *sum * *factor + exponential_in_place(scores + from, to - from, *maximum);
  memset(scores, 0, from * sizeof(float));
  memset(scores + to, 0, (count - to) * sizeof(float));
}

// c[i][r] = factors[r] · c[i][r] + Σ_k a[k][r] · b[k · b_step + i · b_next] for i in 0..<height and width · LANES rows
// r; a and c have ROW_BLOCK rows; without factors c starts from zero.
INLINE void add_outer(const int width, const int height, const float *a, const float *b, size_t b_step, size_t b_next,
                      size_t steps, const float *factors, float *c) {
  vf acc[8][LANE_TILE];
  for (int i = 0; i < height; i++)
    for (int w = 0; w < width; w++)
      acc[i][w] = factors ? vf_mul(vf_load(c + i * ROW_BLOCK + w * LANES), vf_load(factors + w * LANES)) : vf_set(0);
  for (size_t k = 0; k < steps; k++) {
    vf rows[LANE_TILE];
    for (int w = 0; w < width; w++)
      rows[w] = vf_load(a + k * ROW_BLOCK + w * LANES);
    for (int i = 0; i < height; i++) {
      const vf number = vf_set(b[k * b_step + i * b_next]);
      for (int w = 0; w < width; w++)
        acc[i][w] = vf_fma(number, rows[w], acc[i][w]);
    }
  }
  for (int i = 0; i < height; i++)
    for (int w = 0; w < width; w++)
      vf_store(c + i * ROW_BLOCK + w * LANES, acc[i][w]);
}

// The same for i in 0..<count, rounded up to a multiple of 8, and all rows, rounded up to a multiple of LANES.
INLINE void add_outers(const float *a, const float *b, size_t b_step, size_t b_next, size_t steps, const float *factors,
                       size_t count, size_t rows, float *c) {
#define OUTERS(width, height)                                                                                          \
  for (size_t i = 0; i < count; i += height)                                                                           \
    add_outer(width, height, a + r, b + i * b_next, b_step, b_next, steps, factors ? factors + r : NULL,               \
              c + i * ROW_BLOCK + r);                                                                                  \
  r += width * LANES
  for (size_t r = 0; r < rows;) {
    const size_t left = (rows - r + LANES - 1) / LANES;
    if (left >= LANE_TILE) {
      OUTERS(LANE_TILE, 4);
    } else if (LANE_TILE > 3 && left == 3) {
      OUTERS((LANE_TILE > 3 ? 3 : 1), 4);
    } else if (LANE_TILE > 2 && left == 2) {
      OUTERS((LANE_TILE > 2 ? 2 : 1), 4);
    } else { // more numbers for one vector, so that there are enough sums to hide the latency of each
      OUTERS(1, 8);
    }
  }
#undef OUTERS
}

// The softmax of many rows, as soften_row.
INLINE void soften_lanes(float *scores, size_t count, size_t rows, float *maxima, float *sums, float *factors) {
  for (size_t r = 0; r < rows; r += LANES) {
    const vf before = vf_load(maxima + r);
    vf maximum = before, sum = vf_set(0);
    for (size_t p = 0; p < count; p++)
      maximum = vf_max(maximum, vf_load(scores + p * ROW_BLOCK + r));
    for (size_t p = 0; p < count; p++) {
      vf weight = vf_exponential(vf_sub(vf_load(scores + p * ROW_BLOCK + r), maximum));
      vf_store(scores + p * ROW_BLOCK + r, weight);
      sum = vf_add(sum, weight);
    }
    const vf factor = vf_exponential(vf_sub(before, maximum));
    vf_store(maxima + r, maximum);
    vf_store(factors + r, factor);
    vf_store(sums + r, vf_fma(vf_load(sums + r), factor, sum));
  }
}

// out[r][d] = factors[r] · out[r][d] + Σ_p weights[r][p] · tile[p][d] for n rows and width · LANES columns.
INLINE void weigh_columns(const int n, const int width, const float *weights, size_t stride, const float *factors,
                          const float *tile, size_t dim, size_t count, float *out) {
  vf acc[DOT_TILE][2];
  for (int r = 0; r < n; r++)
    for (int w = 0; w < width; w++)
      acc[r][w] = vf_mul(vf_load(out + r * dim + w * LANES), vf_set(factors[r]));
  for (size_t p = 0; p < count; p++) {
    vf v[2];
    for (int w = 0; w < width; w++)
      v[w] = vf_load(tile + p * dim + w * LANES);
    for (int r = 0; r < n; r++) {
      vf weight = vf_set(weights[r * stride + p]);
      for (int w = 0; w < width; w++)
        acc[r][w] = vf_fma(weight, v[w], acc[r][w]);
    }
  }
  for (int r = 0; r < n; r++)
    for (int w = 0; w < width; w++)
      vf_store(out + r * dim + w * LANES, acc[r][w]);
}
INLINE void weigh_rows(const int n, const float *weights, size_t stride, const float *factors, const float *tile,
                       size_t dim, size_t count, float *out) {
  size_t d = 0;
  for (; d + 2 * LANES <= dim; d += 2 * LANES)
    weigh_columns(n, 2, weights, stride, factors, tile + d, dim, count, out + d);
  if (d < dim)
    weigh_columns(n, 1, weights, stride, factors, tile + d, dim, count, out + d);
}

// Calls a function of n rows, n a constant, for all rows r: DOT_TILE at a time, then what is left.
#define FOR_ROWS(rows, call)                                                                                           \
  for (size_t r = 0; r < (rows);) {                                                                                    \
    size_t left = (rows)-r;                                                                                            \
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

// Below any score, and the score of what is not seen, below that: a weight of nothing.
static const float lowest_maximum = -1e30f, unseen_score = -2e30f;

// Which positions the rows of a block see: row r those of begins[r]..<ends[r], all together those of begin..<end, each
// those of last_begin..<first_end.
typedef struct {
  size_t begin, end, last_begin, first_end;
  size_t begins[ROW_BLOCK], ends[ROW_BLOCK];
} block_view;

// Row first_row + r of the call is row r of the block.
INLINE size_t token_of_row(const squint_attention *a, uint32_t first_token, size_t row) {
  return first_token + row / a->heads;
}
INLINE const float *query_of_row(const squint_attention *a, uint32_t first_token, size_t row) {
  return a->q + token_of_row(a, first_token, row) * a->q_token_stride + row % a->heads * a->q_head_stride;
}

INLINE block_view view_of_block(const squint_attention *a, uint32_t first_token, size_t first_row, size_t block) {
  block_view view = {.begin = SIZE_MAX, .end = 0, .last_begin = 0, .first_end = SIZE_MAX};
  for (size_t r = 0; r < block; r++) {
    view.begins[r] = 0;
    view.ends[r] = a->positions;
    if (a->seen) {
      const squint_span seen = a->seen[token_of_row(a, first_token, first_row + r)];
      view.begins[r] = seen.first;
      if (seen.end < view.ends[r])
        view.ends[r] = seen.end;
    }
    view.last_begin = view.begins[r] > view.last_begin ? view.begins[r] : view.last_begin;
    view.first_end = view.ends[r] < view.first_end ? view.ends[r] : view.first_end;
    if (view.begins[r] < view.ends[r]) {
      view.begin = view.begins[r] < view.begin ? view.begins[r] : view.begin;
      view.end = view.ends[r] > view.end ? view.ends[r] : view.end;
    }
  }
  return view;
}

INLINE bool all_see(const block_view *view, size_t first, size_t count) {
  return view->last_begin <= first && first + count <= view->first_end;
}

// What row r sees of a tile: from..<to.
INLINE void view_of_tile(const block_view *view, size_t r, size_t first, size_t count, size_t *from, size_t *to) {
  const size_t begin = view->begins[r], end = view->ends[r];
  *from = begin <= first ? 0 : begin - first < count ? begin - first : count;
  *to = end <= first ? 0 : end - first < count ? end - first : count;
}

// scores[p][r] = value where row r does not see position p of a tile
INLINE void set_unseen(float *scores, float value, const block_view *view, size_t rows, size_t first, size_t count) {
  for (size_t r = 0; r < rows; r++) {
    size_t from, to;
    view_of_tile(view, r, first, count, &from, &to);
    for (size_t p = 0; p < from; p++)
      scores[p * ROW_BLOCK + r] = value;
    for (size_t p = from > to ? from : to; p < count; p++)
      scores[p * ROW_BLOCK + r] = value;
  }
}

// Writes what was summed for the rows of a block, in lanes [head_dim][ROW_BLOCK] or in rows [row][dim], over its sums,
// and the statistics, for which maxima are multiplied by `unit`.
INLINE void write_block(const squint_attention *a, uint32_t first_token, size_t first_row, size_t block,
                        const block_view *view, const bool in_lanes, const float *out, size_t dim, const float *maxima,
                        const float *sums, float unit) {
  for (size_t r = 0; r < block; r++) {
    const size_t token = token_of_row(a, first_token, first_row + r), head = (first_row + r) % a->heads;
    float *to = a->out + token * a->out_token_stride + head * a->out_head_stride;
    const float reciprocal = view->begins[r] < view->ends[r] ? 1 / sums[r] : 0;
    if (a->statistics) {
      float *statistics = a->statistics + 2 * (token * a->heads + head);
      statistics[0] = maxima[r] * unit;
      statistics[1] = sums[r];
    }
    size_t d = 0;
    if (in_lanes)
      for (; d < a->head_dim; d++)
        to[d] = out[d * ROW_BLOCK + r] * reciprocal;
    for (; d + LANES <= a->head_dim; d += LANES)
      vf_store(to + d, vf_mul(vf_load(out + r * dim + d), vf_set(reciprocal)));
    for (; d < a->head_dim; d++)
      to[d] = out[r * dim + d] * reciprocal;
  }
}

// About where lanes become the faster way.
enum { FEWEST_LANES = 8 };

#endif
