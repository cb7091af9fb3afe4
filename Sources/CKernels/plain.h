// The product with plain rows, in the vector vocabulary. DOT_TILE: vectors of x in the register tile of 4 × DOT_TILE
// sums.

// out[t][i] = Σ_c w[i][c] · x[t][c] for i in 0...3 and n vectors of x; w: four rows of `type`.
INLINE void dot_4(const int n, const uint32_t type, const uint8_t *const w[4], const float *x, size_t x_stride,
                  size_t count, float out[][4]) {
  vf acc[DOT_TILE][4];
  for (int t = 0; t < n; t++)
    for (int i = 0; i < 4; i++)
      acc[t][i] = vf_set(0);
  size_t c = 0;
  for (; c + LANES <= count; c += LANES) {
    vf row[4];
    for (int i = 0; i < 4; i++)
      row[i] = load_as_float(type, w[i] + c * element_bytes(type));
    for (int t = 0; t < n; t++) {
      vf v = vf_load(x + t * x_stride + c);
      for (int i = 0; i < 4; i++)
        acc[t][i] = vf_fma(row[i], v, acc[t][i]);
    }
  }
  if (c < count)
    for (int i = 0; i < 4; i++) {
      vf row = load_part_as_float(type, w[i] + c * element_bytes(type), count - c);
      for (int t = 0; t < n; t++)
        acc[t][i] = vf_fma(row, vf_load_part(x + t * x_stride + c, count - c), acc[t][i]);
    }
  for (int t = 0; t < n; t++)
    vf_sum4(acc[t], out[t]);
}

INLINE void plain_rows(const uint32_t type, const squint_plain_product *p, uint32_t first_row, uint32_t rows) {
  enum { CHUNK = 32 }; // tokens whose activations stay in the cache while the rows pass by
  const size_t row_bytes = p->columns * element_bytes(type);
  const uint32_t end = first_row + rows;
  for (uint32_t first = 0; first < p->tokens; first += CHUNK) {
    const uint32_t chunk_end = p->tokens - first < CHUNK ? p->tokens : first + CHUNK;
    for (uint32_t row = first_row; row < end; row += 4) {
      const uint8_t *w[4];
      for (uint32_t i = 0; i < 4; i++) // beyond the end the last row is computed again, and not written
        w[i] = (const uint8_t *)p->weights + (row + i < end ? row + i : end - 1) * row_bytes;
      const uint32_t valid = end - row < 4 ? end - row : 4;
      for (uint32_t t = first; t < chunk_end;) {
        float sums[DOT_TILE][4];
        const uint32_t n = chunk_end - t >= DOT_TILE ? DOT_TILE : 1;
        if (n == DOT_TILE)
          dot_4(DOT_TILE, type, w, p->x + t * p->x_stride, p->x_stride, p->columns, sums);
        else
          dot_4(1, type, w, p->x + t * p->x_stride, p->x_stride, p->columns, sums);
        for (uint32_t i = 0; i < n; i++, t++) {
          float *y = p->y + t * p->y_stride + row;
          for (uint32_t r = 0; r < valid; r++)
            y[r] = p->accumulate ? y[r] + sums[i][r] : sums[i][r];
        }
      }
    }
  }
}

TARGET static void plain_f32(const squint_plain_product *p, uint32_t first_row, uint32_t rows) {
  plain_rows(SQUINT_F32, p, first_row, rows);
}
TARGET static void plain_f16(const squint_plain_product *p, uint32_t first_row, uint32_t rows) {
  plain_rows(SQUINT_F16, p, first_row, rows);
}
TARGET static void plain_bf16(const squint_plain_product *p, uint32_t first_row, uint32_t rows) {
  plain_rows(SQUINT_BF16, p, first_row, rows);
}

static void plain_product(const squint_plain_product *p, uint32_t first_row, uint32_t rows) {
  switch (p->type) {
  case SQUINT_F32:
    return plain_f32(p, first_row, rows);
  case SQUINT_F16:
    return plain_f16(p, first_row, rows);
  case SQUINT_BF16:
    return plain_bf16(p, first_row, rows);
  }
}
