// Attention over an int8 cache, in integers, in the vector vocabulary and these hooks of the instruction set:
//
//   vi_dot       acc + Σ of the four products of a lane's bytes k and q; q is signed
//   KEY_BIAS     0x80 where k is unsigned, 0 where it is signed
//   VALUE_DOTS   1 where weights are multiplied with values by vi_dot, 0 where f32 is as fast
//
// A number is one or two digits of 7 bits, each of which fits a byte whether vi_dot takes it signed or not.
//
// Queries are two digits, in groups of 32 with a scale: 2^-15 of the group's largest magnitude is the most that they
// are off by. A score is the sum over the groups of exact integers times both scales. The softmax is in powers of 2,
// log2 e being part of the queries' scales. Where VALUE_DOTS is 1, the weight of a position, which is at most 1 for the
// best position of its tile, is multiplied with the scale of the value and rounded to two digits of the most that it
// may be in the tile: it is off by at most 2^-15 of the tile's largest weight and scale.
//
// With many rows, one digit of each has to do in tiles whose best weight is at most 1 / SMALL_SHARE of all weights
// before, for all rows that are computed together: nine of ten in a text of 2,000 tokens. A query is then off by 2^-8
// of its largest, and a weight by 2^-8 of at most that share. On SmolLM2-135M and vim's manual the KL divergence from
// f32 is 0.00034 nats with everything but the cache in f32, 0.00038 so, 0.00047 with one digit of queries everywhere
// and 0.00071 with one of weights.
#include "attention_common.h"

enum {
  KEY_GROUPS = SQUINT_MAXIMUM_HEAD_DIM / GROUP_COLUMNS,
  DIGIT_BITS = 7,
  SMALL_SHARE = 4,
  FEW_POSITIONS = 256, // in a tile of few rows
};
#define LOG2_E 1.44269504088896341f
#define LN_2 0.69314718055994531f

// Rounds the n numbers of a group of a query to digits[2][GROUP_COLUMNS], zeros beyond n; returns what a unit of the
// second digit stands for, and in starts[2] what takes the keys' bias out of a digit's sum of products.
INLINE float quantize_query(const float *x, size_t n, int8_t *digits, int32_t *starts) {
  int32_t high, low = 0;
  const float scale = quantize_group(x, n, digits, &high);
  memset(digits + GROUP_COLUMNS, 0, GROUP_COLUMNS);
  if (scale > 0) {
    const vf units = vf_set((1 << DIGIT_BITS) / scale);
    vi sums = vi_zero();
    for (size_t i = 0; i < n; i += LANES) {
      const vf number = i + LANES <= n ? vf_load(x + i) : vf_load_part(x + i, n - i);
      const vf rest = vf_sub(number, vf_mul(vf_set(scale), vf_load_signed_bytes(digits + i)));
      const vi rounded = vi_round(vf_mul(rest, units));
      vi_store_bytes(digits + GROUP_COLUMNS + i, rounded);
      sums = vi_add(sums, rounded);
    }
    low = vi_sum(sums);
  }
  starts[0] = -KEY_BIAS * high;
  starts[1] = -KEY_BIAS * low;
  return scale / (1 << DIGIT_BITS);
}

INLINE vi vi_biased(vi k) { return KEY_BIAS ? vi_xor(k, vi_set((int32_t)(KEY_BIAS * 0x01010101u))) : k; }

// Rows of `width` bytes, `wanted` of them, to be read in full: those at `from`, of which there are `rows` with
// `columns` bytes each, or where that is less, a copy filled up with zeros, GROUP_COLUMNS apart.
INLINE const uint8_t *whole_rows(const uint8_t *from, size_t *stride, size_t rows, size_t wanted, size_t columns,
                                 size_t width, uint8_t *copy) {
  if (rows >= wanted && columns >= width)
    return from;
  memset(copy, 0, wanted * GROUP_COLUMNS);
  for (size_t r = 0; r < rows && r < wanted; r++)
    memcpy(copy + r * GROUP_COLUMNS, from + r * *stride, columns < width ? columns : width);
  *stride = GROUP_COLUMNS;
  return copy;
}

// to[p] = the scales of group g of `count` positions, and zeros up to `padded`.
INLINE void load_scales(const uint16_t *scales, size_t stride, size_t group, size_t count, size_t padded, float *to) {
  uint16_t halves[FEW_POSITIONS];
  for (size_t p = 0; p < count; p++)
    halves[p] = scales[p * stride + group];
  memset(halves + count, 0, (padded - count) * sizeof halves[0]);
  for (size_t p = 0; p < padded; p += LANES)
    vf_store(to + p, vf_load_half(halves + p));
}

// Turns scales of values into what weights are multiplied with to become integers of so many digits; returns what a
// unit of those stands for.
INLINE float scale_weights(float *scales, size_t padded, const int digits) {
  const float most_units = (float)((1 << digits * DIGIT_BITS) - 1);
  vf most = vf_set(0), total = vf_set(0);
  for (size_t p = 0; p < padded; p += LANES) {
    most = vf_max(most, vf_load(scales + p));
    total = vf_add(total, vf_load(scales + p));
  }
  const float largest = vf_maximum(most), sum = vf_sum(total);
  const vf factor = vf_set(largest > 0 ? most_units / largest : 0);
  for (size_t p = 0; p < padded; p += LANES)
    vf_store(scales + p, vf_mul(vf_load(scales + p), factor));
  return sum < INFINITY ? largest / most_units : NAN; // a cache that holds a NaN gives NaN
}

// MARK: Many rows, a lane for each

// to[padded][whole groups of head_dim] = the biased keys of `count` positions, zeros beyond head_dim; those beyond the
// count are anything.
INLINE void copy_keys(const uint8_t *keys, size_t stride, size_t head_dim, size_t count, size_t padded, uint8_t *to) {
  const size_t dim = (head_dim + GROUP_COLUMNS - 1) / GROUP_COLUMNS * GROUP_COLUMNS;
  for (size_t p = 0; p < count; p++, keys += stride, to += dim) {
    size_t d = 0;
    for (; d + 4 * LANES <= head_dim; d += 4 * LANES)
      vi_store(to + d, vi_biased(vi_load(keys + d)));
    for (; d < head_dim; d++)
      to[d] = keys[d] ^ KEY_BIAS;
    for (; d < dim; d++)
      to[d] = KEY_BIAS;
  }
  memset(to, 0, (padded - count) * dim);
}

// scores[p][r] (+)= k_scales[p] · q_scales[r] · Σ over a group's 32 columns of K[p] · a digit of q[r], for `height`
// positions and width · LANES rows. k: [p][k_stride], biased; q: [8 quads][ROW_BLOCK][4].
INLINE void score_lanes(const int width, const int height, const bool accumulate, const uint8_t *k, size_t k_stride,
                        const float *k_scales, const int8_t *q, const float *q_scales, const int32_t *q_starts,
                        float *scores) {
  vi acc[4][LANE_TILE];
  for (int w = 0; w < width; w++)
    for (int i = 0; i < height; i++)
      acc[i][w] = vi_load(q_starts + w * LANES);
#pragma GCC unroll 8
  for (int quad = 0; quad < 8; quad++) {
    vi rows[LANE_TILE];
    for (int w = 0; w < width; w++)
      rows[w] = vi_load(q + 4 * (quad * ROW_BLOCK + w * LANES));
    for (int i = 0; i < height; i++) {
      const vi ks = vi_broadcast(k + i * k_stride + 4 * quad);
      for (int w = 0; w < width; w++)
        acc[i][w] = vi_dot(acc[i][w], ks, rows[w]);
    }
  }
  for (int i = 0; i < height; i++)
    for (int w = 0; w < width; w++) {
      float *score = scores + i * ROW_BLOCK + w * LANES;
      const vf dot = vf_mul(vf_from_int(acc[i][w]), vf_load(q_scales + w * LANES)), scale = vf_set(k_scales[i]);
      vf_store(score, accumulate ? vf_fma(dot, scale, vf_load(score)) : vf_mul(dot, scale));
    }
}

// out[d][r] = factors[r] · out[d][r] + steps[r] · Σ_p weights[r][p] · V[p][d] for `height` columns and width · LANES
// rows. weights: [digits][POSITION_TILE / 4][ROW_BLOCK][4], the high digits first; v: [quads][v_stride][4].
INLINE void weigh_lanes(const int width, const int height, const int digits, const uint8_t *weights, const uint8_t *v,
                        size_t v_stride, size_t quads, const float *factors, const float *steps, float *out) {
  vi acc[4][LANE_TILE];
  for (int i = 0; i < height; i++)
    for (int w = 0; w < width; w++)
      acc[i][w] = vi_zero();
  for (int digit = 0; digit < digits; digit++, weights += POSITION_TILE * ROW_BLOCK) {
    if (digit > 0)
      for (int i = 0; i < height; i++)
        for (int w = 0; w < width; w++)
          acc[i][w] = vi_shift_left(acc[i][w], DIGIT_BITS);
    for (size_t quad = 0; quad < quads; quad++) {
      vi rows[LANE_TILE];
      for (int w = 0; w < width; w++)
        rows[w] = vi_load(weights + 4 * (quad * ROW_BLOCK + w * LANES));
      for (int i = 0; i < height; i++) {
        const vi vs = vi_broadcast(v + 4 * (quad * v_stride + i));
        for (int w = 0; w < width; w++)
          acc[i][w] = vi_dot(acc[i][w], rows[w], vs);
      }
    }
  }
  for (int w = 0; w < width; w++) {
    const vf factor = vf_load(factors + w * LANES), step = vf_load(steps + w * LANES);
    for (int i = 0; i < height; i++) {
      float *sum = out + i * ROW_BLOCK + w * LANES;
      vf_store(sum, vf_fma(vf_from_int(acc[i][w]), step, vf_mul(vf_load(sum), factor)));
    }
  }
}

// Calls a function of `width` vectors of rows, a constant, for all rows r, rounded up to a multiple of LANES.
#define FOR_LANES(rows, call)                                                                                          \
  for (size_t r = 0; r < (rows);) {                                                                                    \
    const size_t left = ((rows)-r + LANES - 1) / LANES;                                                                \
    if (left >= LANE_TILE) {                                                                                           \
      enum { width = LANE_TILE };                                                                                      \
      call;                                                                                                            \
      r += width * LANES;                                                                                              \
    } else if (LANE_TILE > 3 && left == 3) {                                                                           \
      enum { width = LANE_TILE > 3 ? 3 : 1 };                                                                          \
      call;                                                                                                            \
      r += width * LANES;                                                                                              \
    } else if (LANE_TILE > 2 && left == 2) {                                                                           \
      enum { width = LANE_TILE > 2 ? 2 : 1 };                                                                          \
      call;                                                                                                            \
      r += width * LANES;                                                                                              \
    } else {                                                                                                           \
      enum { width = 1 };                                                                                              \
      call;                                                                                                            \
      r += width * LANES;                                                                                              \
    }                                                                                                                  \
  }

// The scores of a group, or what the second digit adds to them, of a tile's positions and a block's rows: see
// score_lanes.
INLINE void score_group(const bool accumulate, const uint8_t *k, size_t k_stride, size_t count, size_t rows,
                        const float *k_scales, const int8_t *q, const float *q_scales, const int32_t *q_starts,
                        float *scores) {
  FOR_LANES(rows, for (size_t p = 0; p < count; p += 4)
                      score_lanes(width, 4, accumulate, k + p * k_stride, k_stride, k_scales + p, q + 4 * r,
                                  q_scales + r, q_starts + r, scores + p * ROW_BLOCK + r))
}

// Finds the maxima of a tile, whose positions are a multiple of 4. Whether the best weight of the tile is at most
// 1 / SMALL_SHARE of all weights before it, for all rows.
INLINE bool is_small_share(const float *scores, size_t padded, size_t rows, const float *maxima, const float *sums,
                           float *tile_maxima) {
  vf excess = vf_set(-INFINITY);
  for (size_t r = 0; r < rows; r += LANES) {
    vf most[4]; // chains, each of which waits for itself
    for (int i = 0; i < 4; i++)
      most[i] = vf_set(lowest_maximum);
    for (size_t p = 0; p < padded; p += 4)
      for (size_t i = 0; i < 4; i++)
        most[i] = vf_max(most[i], vf_load(scores + (p + i) * ROW_BLOCK + r));
    const vf own = vf_max(vf_max(most[0], most[1]), vf_max(most[2], most[3])), before = vf_load(maxima + r);
    vf_store(tile_maxima + r, own);
    const vf maximum = vf_max(before, own);
    const vf weight = vf_mul(vf_power_of_2(vf_sub(own, maximum)), vf_set(SMALL_SHARE));
    const vf weights = vf_mul(vf_power_of_2(vf_sub(before, maximum)), vf_load(sums + r));
    excess = vf_max(excess, vf_sub(weight, weights));
  }
  return vf_maximum(excess) <= 0;
}

// The softmax of a tile, whose positions are a multiple of 4: scores become 2^(score - reference), the reference being
// the tile's own maximum or, where values are in f32, that of all tiles. What was summed before has to be multiplied by
// `factors`, and what the tile gives by `tile_factors`.
INLINE void soften_int8_lanes(float *scores, size_t padded, size_t rows, const float *tile_maxima, float *maxima,
                              float *sums, float *factors, float *tile_factors) {
  for (size_t r = 0; r < rows; r += LANES) {
    const vf before = vf_load(maxima + r), tile_maximum = vf_load(tile_maxima + r);
    const vf maximum = vf_max(before, tile_maximum), reference = VALUE_DOTS ? tile_maximum : maximum;
    vf total[4]; // chains, each of which waits for itself
    for (int i = 0; i < 4; i++)
      total[i] = vf_set(0);
    for (size_t p = 0; p < padded; p += 4)
      for (size_t i = 0; i < 4; i++) {
        const vf weight = vf_power_of_2(vf_sub(vf_load(scores + (p + i) * ROW_BLOCK + r), reference));
        vf_store(scores + (p + i) * ROW_BLOCK + r, weight);
        total[i] = vf_add(total[i], weight);
      }
    const vf sum = vf_add(vf_add(total[0], total[1]), vf_add(total[2], total[3]));
    const vf factor = vf_power_of_2(vf_sub(before, maximum)), own = vf_power_of_2(vf_sub(reference, maximum));
    vf_store(maxima + r, maximum);
    vf_store(factors + r, factor);
    vf_store(tile_factors + r, own);
    vf_store(sums + r, vf_fma(vf_load(sums + r), factor, vf_mul(sum, own)));
  }
}

// Four numbers below 128 each, a byte for each.
INLINE vi vi_pack(const vi numbers[4]) {
  return vi_or(vi_or(numbers[0], vi_shift_left(numbers[1], 8)),
               vi_or(vi_shift_left(numbers[2], 16), vi_shift_left(numbers[3], 24)));
}

// to[digits][POSITION_TILE / 4][ROW_BLOCK][4] = weights[p][r] · scales[p], rounded.
INLINE void round_weights(const int digits, const float *weights, const float *scales, size_t quads, size_t rows,
                          uint8_t *to) {
  for (size_t quad = 0; quad < quads; quad++)
    for (size_t r = 0; r < rows; r += LANES) {
      vi low[4], high[4];
      for (size_t i = 0; i < 4; i++) {
        low[i] = vi_round(vf_mul(vf_load(weights + (4 * quad + i) * ROW_BLOCK + r), vf_set(scales[4 * quad + i])));
        high[i] = vi_shift_right(low[i], DIGIT_BITS);
        if (digits > 1)
          low[i] = vi_and(low[i], vi_set((1 << DIGIT_BITS) - 1));
      }
      uint8_t *bytes = to + 4 * (quad * ROW_BLOCK + r);
      if (digits > 1)
        vi_store(bytes, vi_pack(high));
      vi_store(bytes + (digits - 1) * POSITION_TILE * ROW_BLOCK, vi_pack(low));
    }
}

// Adds what a tile of values gives: for each group of columns its weights in integers, times the values.
INLINE void add_values_in_lanes(const int digits, const squint_attention *a, size_t first, size_t count, size_t block,
                                const float *scores, const float *factors, const float *tile_factors, uint8_t *weights,
                                uint8_t *tile, float *out) {
  const size_t quads = (count + 3) / 4;
  const uint8_t *values = (const uint8_t *)a->v + first * a->kv_stride;
  for (size_t column = 0; column < a->head_dim; column += GROUP_COLUMNS) {
    const size_t columns = a->head_dim - column;
    float scales[POSITION_TILE], steps[ROW_BLOCK];
    load_scales(a->v_scales + first * a->scale_stride, a->scale_stride, column / GROUP_COLUMNS, count, POSITION_TILE,
                scales);
    const float step = scale_weights(scales, POSITION_TILE, digits);
    for (size_t r = 0; r < block; r += LANES)
      vf_store(steps + r, vf_mul(vf_load(tile_factors + r), vf_set(step)));
    round_weights(digits, scores, scales, quads, block, weights);
    for (size_t quad = 0; quad < quads; quad++) {
      uint8_t copy[4 * GROUP_COLUMNS];
      size_t stride = a->kv_stride;
      const uint8_t *rows =
          whole_rows(values + 4 * quad * stride + column, &stride, count - 4 * quad, 4, columns, GROUP_COLUMNS, copy);
      for (size_t d = 0; d < GROUP_COLUMNS; d += VALUE_VECTORS * LANES) {
        vi v[VALUE_VECTORS];
        load_value_quads(rows + d, stride, v);
        for (size_t i = 0; i < VALUE_VECTORS; i++)
          vi_store(tile + 4 * (quad * GROUP_COLUMNS + d + i * LANES), v[i]);
      }
    }
    FOR_LANES(block, for (size_t d = 0; d < GROUP_COLUMNS && d < columns; d += 4)
                         weigh_lanes(width, 4, digits, weights + 4 * r, tile + 4 * d, GROUP_COLUMNS, quads, factors + r,
                                     steps + r, out + (column + d) * ROW_BLOCK + r))
  }
}

// Attention of a block of rows in lanes; out: [head_dim][ROW_BLOCK].
INLINE void attend_int8_lanes(const squint_attention *a, uint32_t first_token, size_t first_row, size_t block,
                              const block_view *view, float *out, float *maxima, float *sums, uint8_t *scratch) {
  const size_t groups = (a->head_dim + GROUP_COLUMNS - 1) / GROUP_COLUMNS, dim = groups * GROUP_COLUMNS;
  int8_t *q = (int8_t *)scratch;                                  // [2 digits][groups][8 quads][ROW_BLOCK][4]
  float *q_scales = (float *)(scratch + 2 * ROW_BLOCK * dim);     // [groups][ROW_BLOCK], of a unit of the second digit
  int32_t *q_starts = (int32_t *)(q_scales + ROW_BLOCK * groups); // [2 digits][groups][ROW_BLOCK]
  uint8_t *tile = (uint8_t *)(q_starts + 2 * ROW_BLOCK * groups); // keys, then values, of a tile
  float scores[ROW_BLOCK * POSITION_TILE] __attribute__((aligned(64)));
  uint8_t weights[2 * ROW_BLOCK * POSITION_TILE] __attribute__((aligned(64)));
  float factors[ROW_BLOCK], tile_factors[ROW_BLOCK], tile_maxima[ROW_BLOCK], scales[KEY_GROUPS * POSITION_TILE];
  memset(scratch, 0, (size_t)(tile - scratch)); // also rows that are none are computed
  memset(out, 0, ROW_BLOCK * padded_head_dim(a->head_dim) * sizeof(float));
  for (size_t r = 0; r < block; r++) {
    const float *from = query_of_row(a, first_token, first_row + r);
    for (size_t g = 0; g < groups; g++) {
      const size_t left = a->head_dim - g * GROUP_COLUMNS, n = left < GROUP_COLUMNS ? left : GROUP_COLUMNS;
      int8_t group[2 * GROUP_COLUMNS];
      int32_t starts[2];
      q_scales[g * ROW_BLOCK + r] = a->scale * LOG2_E * quantize_query(from + g * GROUP_COLUMNS, n, group, starts);
      for (size_t digit = 0; digit < 2; digit++) {
        q_starts[(digit * groups + g) * ROW_BLOCK + r] = starts[digit];
        for (size_t quad = 0; quad < 8; quad++)
          memcpy(q + 4 * ((8 * (digit * groups + g) + quad) * ROW_BLOCK + r), group + digit * GROUP_COLUMNS + 4 * quad,
                 4);
      }
    }
  }
  for (size_t first = view->begin; first < view->end; first += POSITION_TILE) {
    const size_t count = view->end - first < POSITION_TILE ? view->end - first : POSITION_TILE;
    const size_t quads = (count + 3) / 4;
    const uint8_t *keys = (const uint8_t *)a->k + first * a->kv_stride;
    copy_keys(keys, a->kv_stride, a->head_dim, count, 4 * quads, tile);
    for (size_t g = 0; g < groups; g++) {
      float *group_scales = scales + g * POSITION_TILE;
      load_scales(a->k_scales + first * a->scale_stride, a->scale_stride, g, count, POSITION_TILE, group_scales);
      for (size_t p = 0; p < POSITION_TILE; p += LANES)
        vf_store(group_scales + p, vf_mul(vf_load(group_scales + p), vf_set(1 << DIGIT_BITS)));
      const size_t part = g * ROW_BLOCK;
      if (g == 0)
        score_group(false, tile, dim, count, block, group_scales, q, q_scales, q_starts, scores);
      else
        score_group(true, tile + g * GROUP_COLUMNS, dim, count, block, group_scales, q + GROUP_COLUMNS * part,
                    q_scales + part, q_starts + part, scores);
    }
    if (!all_see(view, first, count))
      set_unseen(scores, unseen_score, view, block, first, count);
    for (size_t p = count; p < 4 * quads; p++)
      for (size_t r = 0; r < block; r += LANES)
        vf_store(scores + p * ROW_BLOCK + r, vf_set(unseen_score));
    const bool small = is_small_share(scores, 4 * quads, block, maxima, sums, tile_maxima);
    if (!small) {
      for (size_t g = 0; g < groups; g++) {
        float *group_scales = scales + g * POSITION_TILE;
        for (size_t p = 0; p < POSITION_TILE; p += LANES)
          vf_store(group_scales + p, vf_mul(vf_load(group_scales + p), vf_set(1.f / (1 << DIGIT_BITS))));
        const size_t part = (groups + g) * ROW_BLOCK;
        score_group(true, tile + g * GROUP_COLUMNS, dim, count, block, group_scales, q + GROUP_COLUMNS * part,
                    q_scales + g * ROW_BLOCK, q_starts + part, scores);
      }
      is_small_share(scores, 4 * quads, block, maxima, sums, tile_maxima);
    }
    soften_int8_lanes(scores, 4 * quads, block, tile_maxima, maxima, sums, factors, tile_factors);
#if VALUE_DOTS
    if (small)
      add_values_in_lanes(1, a, first, count, block, scores, factors, tile_factors, weights, tile, out);
    else
      add_values_in_lanes(2, a, first, count, block, scores, factors, tile_factors, weights, tile, out);
#else
    (void)weights, (void)small;
    const size_t padded = padded_head_dim(a->head_dim);
    load_tile(SQUINT_INT8, a->v, a->v_scales, a, first, count, padded, (float *)tile);
    add_outers(scores, (float *)tile, padded, 1, count, factors, a->head_dim, block, out);
#endif
  }
}

// MARK: Few rows, a lane for each position or column

// The softmax of one row of a tile, as soften_int8_lanes; `count` scores are followed by room for a whole vector.
INLINE void soften_int8_row(float *scores, size_t from, size_t to, size_t count, float *maximum, float *sum,
                            float *factor, float *tile_factor) {
  const size_t padded = (count + LANES - 1) / LANES * LANES;
  for (size_t p = 0; p < from; p++)
    scores[p] = unseen_score;
  for (size_t p = to; p < padded; p++)
    scores[p] = unseen_score;
  vf most = vf_set(lowest_maximum), total = vf_set(0);
  for (size_t p = 0; p < padded; p += LANES)
    most = vf_max(most, vf_load(scores + p));
  const float tile_maximum = vf_maximum(most), before = *maximum;
  *maximum = before > tile_maximum ? before : tile_maximum;
  const float reference = VALUE_DOTS ? tile_maximum : *maximum;
  for (size_t p = 0; p < padded; p += LANES) {
    const vf weight = vf_power_of_2(vf_sub(vf_load(scores + p), vf_set(reference)));
    vf_store(scores + p, weight);
    total = vf_add(total, weight);
  }
  float lanes[LANES];
  vf_store(lanes, vf_power_of_2(vf_set(before - *maximum)));
  *factor = lanes[0];
  vf_store(lanes, vf_power_of_2(vf_set(reference - *maximum)));
  *tile_factor = lanes[0];
  *sum = *sum * *factor + vf_sum(total) * *tile_factor;
}

// out[r][d] = factors[r] · out[r][d] + steps[r] · Σ_p weights[r][p] · V[p][d] for n rows and VALUE_VECTORS · LANES
// columns, of which `columns` exist. weights: [n][2 digits][FEW_POSITIONS], the high ones first; zeros beyond the
// count.
INLINE void weigh_few(const int n, const uint8_t *weights, const uint8_t *values, size_t stride, size_t count,
                      size_t columns, const float *factors, const float *steps, size_t dim, float *out) {
  vi high[DOT_TILE][VALUE_VECTORS], low[DOT_TILE][VALUE_VECTORS];
  for (int r = 0; r < n; r++)
    for (int i = 0; i < VALUE_VECTORS; i++)
      high[r][i] = low[r][i] = vi_zero();
  for (size_t p = 0; p < count; p += 4) {
    uint8_t copy[4 * GROUP_COLUMNS];
    size_t row_stride = stride;
    const uint8_t *rows =
        whole_rows(values + p * stride, &row_stride, count - p, 4, columns, VALUE_VECTORS * LANES, copy);
    vi v[VALUE_VECTORS];
    load_value_quads(rows, row_stride, v);
    for (int r = 0; r < n; r++) {
      const vi h = vi_broadcast(weights + 2 * r * FEW_POSITIONS + p);
      const vi l = vi_broadcast(weights + (2 * r + 1) * FEW_POSITIONS + p);
      for (int i = 0; i < VALUE_VECTORS; i++) {
        high[r][i] = vi_dot(high[r][i], h, v[i]);
        low[r][i] = vi_dot(low[r][i], l, v[i]);
      }
    }
  }
  for (int r = 0; r < n; r++)
    for (size_t i = 0; i < VALUE_VECTORS && i * LANES < columns; i++) {
      float *sum = out + r * dim + i * LANES;
      const vf dot = vf_from_int(vi_add(vi_shift_left(high[r][i], DIGIT_BITS), low[r][i]));
      vf_store(sum, vf_fma(dot, vf_set(steps[r]), vf_mul(vf_load(sum), vf_set(factors[r]))));
    }
}

// Attention of fewer than FEWEST_LANES rows; out: [block][padded_head_dim].
INLINE void attend_int8_few(const squint_attention *a, uint32_t first_token, size_t first_row, size_t block,
                            const block_view *view, float *out, float *maxima, float *sums, uint8_t *scratch) {
  const size_t groups = (a->head_dim + GROUP_COLUMNS - 1) / GROUP_COLUMNS, dim = groups * GROUP_COLUMNS;
  const size_t padded_dim = padded_head_dim(a->head_dim);
  int8_t *q = (int8_t *)scratch; // [block][groups][2 digits][GROUP_COLUMNS]
  float q_scales[FEWEST_LANES][KEY_GROUPS];
  int32_t q_starts[FEWEST_LANES][KEY_GROUPS][2];
  float scores[FEWEST_LANES][FEW_POSITIONS] __attribute__((aligned(64)));
  uint8_t weights[FEWEST_LANES][2][FEW_POSITIONS] __attribute__((aligned(64)));
  float factors[FEWEST_LANES], tile_factors[FEWEST_LANES], scales[FEW_POSITIONS];
  memset(out, 0, block * padded_dim * sizeof(float));
  for (size_t r = 0; r < block; r++) {
    const float *from = query_of_row(a, first_token, first_row + r);
    for (size_t g = 0; g < groups; g++) {
      const size_t left = a->head_dim - g * GROUP_COLUMNS, n = left < GROUP_COLUMNS ? left : GROUP_COLUMNS;
      int8_t *group = q + 2 * (r * dim + g * GROUP_COLUMNS);
      q_scales[r][g] = a->scale * LOG2_E * quantize_query(from + g * GROUP_COLUMNS, n, group, q_starts[r][g]);
    }
  }
  for (size_t first = view->begin; first < view->end; first += FEW_POSITIONS) {
    const size_t count = view->end - first < FEW_POSITIONS ? view->end - first : FEW_POSITIONS;
    const size_t padded = (count + LANES - 1) / LANES * LANES;
    const uint8_t *keys = (const uint8_t *)a->k + first * a->kv_stride;
    const uint8_t *values = (const uint8_t *)a->v + first * a->kv_stride;
    // The cache comes from memory, and hardware does not fetch ahead across pages. Values are fetched while keys pass
    // by.
    const size_t key_bytes = count * a->kv_stride;
    for (size_t at = 0; at < PREFETCH_DISTANCE && at < key_bytes; at += 64)
      __builtin_prefetch(keys + at);
    for (size_t g = 0; g < groups; g++) {
      const size_t columns = a->head_dim - g * GROUP_COLUMNS;
      load_scales(a->k_scales + first * a->scale_stride, a->scale_stride, g, count, padded, scales);
      for (size_t p = 0; p < count; p += LANES) {
        for (size_t at = p * a->kv_stride; g == 0 && at < (p + LANES) * a->kv_stride; at += 64) {
          if (at + PREFETCH_DISTANCE < key_bytes)
            __builtin_prefetch(keys + at + PREFETCH_DISTANCE);
          __builtin_prefetch(values + at);
        }
        uint8_t copy[LANES * GROUP_COLUMNS];
        size_t stride = a->kv_stride;
        const uint8_t *rows = keys + p * a->kv_stride + g * GROUP_COLUMNS;
        rows = whole_rows(rows, &stride, count - p, LANES, columns, GROUP_COLUMNS, copy);
        vi k[8];
        load_key_quads(rows, stride, k);
        for (int quad = 0; quad < 8; quad++)
          k[quad] = vi_biased(k[quad]);
        const vf k_scale = vf_load(scales + p);
        for (size_t r = 0; r < block; r++) {
          const int8_t *qs = q + 2 * (r * dim + g * GROUP_COLUMNS);
          vi high = vi_set(q_starts[r][g][0]), low = vi_set(q_starts[r][g][1]);
          for (int quad = 0; quad < 8; quad++) {
            high = vi_dot(high, k[quad], vi_broadcast(qs + 4 * quad));
            low = vi_dot(low, k[quad], vi_broadcast(qs + GROUP_COLUMNS + 4 * quad));
          }
          const vi sum = vi_add(vi_shift_left(high, DIGIT_BITS), low);
          const vf dot = vf_mul(vf_from_int(sum), vf_set(q_scales[r][g]));
          vf_store(&scores[r][p], g == 0 ? vf_mul(dot, k_scale) : vf_fma(dot, k_scale, vf_load(&scores[r][p])));
        }
      }
    }
    for (size_t r = 0; r < block; r++) {
      size_t from, to;
      view_of_tile(view, r, first, count, &from, &to);
      soften_int8_row(scores[r], from, to, count, &maxima[r], &sums[r], &factors[r], &tile_factors[r]);
    }
#if VALUE_DOTS
    for (size_t g = 0; g < groups; g++) {
      load_scales(a->v_scales + first * a->scale_stride, a->scale_stride, g, count, padded, scales);
      const float step = scale_weights(scales, padded, 2);
      float steps[FEWEST_LANES];
      for (size_t r = 0; r < block; r++) {
        steps[r] = step * tile_factors[r];
        for (size_t p = 0; p < padded; p += LANES) {
          const vi units = vi_round(vf_mul(vf_load(&scores[r][p]), vf_load(scales + p)));
          vi_store_bytes((int8_t *)&weights[r][0][p], vi_shift_right(units, DIGIT_BITS));
          vi_store_bytes((int8_t *)&weights[r][1][p], vi_and(units, vi_set((1 << DIGIT_BITS) - 1)));
        }
      }
      for (size_t d = g * GROUP_COLUMNS; d < (g + 1) * GROUP_COLUMNS && d < padded_dim; d += VALUE_VECTORS * LANES)
        FOR_ROWS(block, weigh_few(n, weights[r][0], values + d, a->kv_stride, count, a->head_dim - d, factors + r,
                                  steps + r, padded_dim, out + r * padded_dim + d))
    }
#else
    (void)weights;
    float *tile = (float *)(scratch + 2 * FEWEST_LANES * dim);
    for (size_t p = 0; p < count; p += POSITION_TILE) {
      const size_t part = count - p < POSITION_TILE ? count - p : POSITION_TILE;
      load_tile(SQUINT_INT8, a->v, a->v_scales, a, first + p, part, padded_dim, tile);
      FOR_ROWS(block, weigh_rows(n, &scores[r][p], FEW_POSITIONS, p == 0 ? factors + r : tile_factors + r, tile,
                                 padded_dim, part, out + r * padded_dim))
    }
#endif
  }
}

TARGET static void attention_int8(const squint_attention *a, uint32_t first_token, uint32_t tokens, float *scratch) {
  const size_t rows = (size_t)tokens * a->heads;
  float *out = scratch;
  uint8_t *rest = (uint8_t *)(out + ROW_BLOCK * padded_head_dim(a->head_dim));
  float maxima[ROW_BLOCK], sums[ROW_BLOCK];
  for (size_t first_row = 0; first_row < rows; first_row += ROW_BLOCK) {
    const size_t block = rows - first_row < ROW_BLOCK ? rows - first_row : ROW_BLOCK;
    const bool in_lanes = block >= FEWEST_LANES;
    const block_view view = view_of_block(a, first_token, first_row, block);
    for (size_t r = 0; r < ROW_BLOCK; r++) {
      sums[r] = 0;
      maxima[r] = lowest_maximum;
    }
    if (in_lanes)
      attend_int8_lanes(a, first_token, first_row, block, &view, out, maxima, sums, rest);
    else
      attend_int8_few(a, first_token, first_row, block, &view, out, maxima, sums, rest);
    write_block(a, first_token, first_row, block, &view, in_lanes, out, padded_head_dim(a->head_dim), maxima, sums,
                LN_2);
  }
}
