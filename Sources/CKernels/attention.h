// Attention with the online softmax, in the vector vocabulary: for a block of query rows (token, head), tile by tile
// of positions: scores = q·Kᵀ, weights = exp(scores - maximum), out = factor · out + weights·V.
//
// There are two ways. Few rows (decode): dot products along head_dim, scores[row][position]. Many (prefill, encoders):
// a lane for each row, q[dim][row], scores[position][row], out[dim][row], which needs no sums across lanes.
#include "attention_common.h"

INLINE void attention_of_type(const uint32_t type, const squint_attention *a, uint32_t first_token, uint32_t tokens,
                              float *scratch) {
  const size_t dim = padded_head_dim(a->head_dim), rows = (size_t)tokens * a->heads;
  float *q = scratch, *out = q + ROW_BLOCK * dim, *tile = out + ROW_BLOCK * dim;
  float scores[ROW_BLOCK * POSITION_TILE] __attribute__((aligned(64)));
  float factors[ROW_BLOCK], maxima[ROW_BLOCK], sums[ROW_BLOCK];
  for (size_t first_row = 0; first_row < rows; first_row += ROW_BLOCK) {
    const size_t block = rows - first_row < ROW_BLOCK ? rows - first_row : ROW_BLOCK;
    const bool in_lanes = block >= FEWEST_LANES;
    const block_view view = view_of_block(a, first_token, first_row, block);
    // In lanes all rows of the block are computed, also those that are none.
    memset(q, 0, (in_lanes ? ROW_BLOCK : block) * dim * sizeof(float));
    memset(out, 0, (in_lanes ? ROW_BLOCK : block) * dim * sizeof(float));
    for (size_t r = 0; r < ROW_BLOCK; r++) {
      sums[r] = 0;
      maxima[r] = lowest_maximum;
    }
    for (size_t r = 0; r < block; r++) {
      const float *from = query_of_row(a, first_token, first_row + r);
      if (in_lanes)
        for (size_t d = 0; d < a->head_dim; d++)
          q[d * ROW_BLOCK + r] = from[d] * a->scale;
      else
        for (size_t d = 0; d < a->head_dim; d++)
          q[r * dim + d] = from[d] * a->scale;
    }
    for (size_t first = view.begin; first < view.end; first += POSITION_TILE) {
      const size_t count = view.end - first < POSITION_TILE ? view.end - first : POSITION_TILE;
      load_tile(type, a->k, NULL, a, first, count, dim, tile);
      const bool all_seen = all_see(&view, first, count);
      if (in_lanes) {
        add_outers(q, tile, 1, dim, a->head_dim, NULL, count, block, scores);
        if (!all_seen)
          set_unseen(scores, unseen_score, &view, block, first, count);
        soften_lanes(scores, count, block, maxima, sums, factors);
        if (!all_seen)
          set_unseen(scores, 0, &view, block, first, count);
      } else {
        FOR_ROWS(block, score_rows(n, q + r * dim, tile, dim, count, scores + r * POSITION_TILE));
        for (size_t r = 0; r < block; r++) {
          size_t from, to;
          view_of_tile(&view, r, first, count, &from, &to);
          soften_row(scores + r * POSITION_TILE, from, to, count, &maxima[r], &sums[r], &factors[r]);
        }
      }
      load_tile(type, a->v, NULL, a, first, count, dim, tile);
      if (in_lanes)
        add_outers(scores, tile, dim, 1, count, factors, a->head_dim, block, out);
      else
        FOR_ROWS(block,
                 weigh_rows(n, scores + r * POSITION_TILE, POSITION_TILE, factors + r, tile, dim, count, out + r * dim))
    }
    write_block(a, first_token, first_row, block, &view, in_lanes, out, dim, maxima, sums, 1);
  }
}

TARGET static void attention_f32(const squint_attention *a, uint32_t first_token, uint32_t tokens, float *scratch) {
  attention_of_type(SQUINT_F32, a, first_token, tokens, scratch);
}
TARGET static void attention_f16(const squint_attention *a, uint32_t first_token, uint32_t tokens, float *scratch) {
  attention_of_type(SQUINT_F16, a, first_token, tokens, scratch);
}
