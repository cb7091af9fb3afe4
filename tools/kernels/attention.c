// How fast attention over an int8 cache is.
//
//     clang -std=c11 -O2 -I Sources/CKernels/include Sources/CKernels/*.c tools/kernels/attention.c -lm -o attention
//     ./attention [ISA [HEAD_DIM [HEADS [ROWS]]]]      HEADS query heads share a KV head; pieces of ROWS tokens
//
// Prints the best of several passes, in processor time, of one thread: prefill of 2,048 tokens in chunks of 128, per 16
// pairs of a query and a position that it sees; and decode behind 2,048, in parts of 256 positions, per position, from
// caches that fit the second level and from some that come from memory.
#define _POSIX_C_SOURCE 200809L
#include "kernels.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POSITIONS = 2048, CHUNK = 128, PART = 256, PASSES = 7, PREFILL_CACHES = 8 };

typedef struct {
  int8_t *numbers;
  uint16_t *scales;
} half_cache;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float number(size_t i) { return (float)((i * 2654435761u >> 9) % 4096) / 2048 - 1; }

// `caches` times POSITIONS rows; they repeat after the first.
static half_cache filled(const squint_kernels *k, size_t caches, size_t dim, float magnitude) {
  const size_t groups = (dim + 31) / 32, rows = POSITIONS;
  half_cache cache = {malloc(caches * rows * dim), malloc(caches * rows * groups * sizeof(uint16_t))};
  float row[SQUINT_MAXIMUM_HEAD_DIM];
  for (size_t p = 0; p < rows; p++) {
    for (size_t d = 0; d < dim; d++)
      row[d] = magnitude * number(p * dim + d);
    k->f32_to_int8(row, dim, cache.numbers + p * dim, cache.scales + p * groups);
  }
  for (size_t c = 1; c < caches; c++) {
    memcpy(cache.numbers + c * rows * dim, cache.numbers, rows * dim);
    memcpy(cache.scales + c * rows * groups, cache.scales, rows * groups * sizeof(uint16_t));
  }
  return cache;
}

static squint_attention from_position(squint_attention a, half_cache k, half_cache v, size_t position) {
  a.k = k.numbers + position * a.kv_stride;
  a.v = v.numbers + position * a.kv_stride;
  a.k_scales = k.scales + position * a.scale_stride;
  a.v_scales = v.scales + position * a.scale_stride;
  return a;
}

static double prefill(const squint_kernels *kernels, const squint_attention *all, half_cache k, half_cache v,
                      uint32_t rows, float *scratch) {
  const double start = now();
  for (uint32_t chunk = 0; chunk < POSITIONS; chunk += CHUNK)
    for (uint32_t t = 0; t < CHUNK; t += rows) {
      squint_attention a = from_position(*all, k, v, (size_t)(chunk / CHUNK % PREFILL_CACHES) * POSITIONS);
      const uint32_t tokens = CHUNK - t < rows ? CHUNK - t : rows;
      a.q += t * a.q_token_stride;
      a.out += t * a.out_token_stride;
      squint_span seen[CHUNK];
      for (uint32_t i = 0; i < tokens; i++)
        seen[i] = (squint_span){0, chunk + t + i + 1};
      a.seen = seen;
      a.positions = chunk + t + tokens;
      kernels->attention(&a, 0, tokens, scratch);
    }
  return now() - start;
}

// In the order of a session: the parts of three KV heads, then the next three.
static double decode(const squint_kernels *kernels, const squint_attention *all, half_cache k, half_cache v,
                     size_t caches, float *scratch) {
  const double start = now();
  for (size_t first = 0; first < caches; first += 3)
    for (size_t part = 0; part < POSITIONS; part += PART)
      for (size_t c = first; c < first + 3 && c < caches; c++) {
        squint_attention a = from_position(*all, k, v, c * POSITIONS + part);
        a.positions = PART;
        kernels->attention(&a, 0, 1, scratch);
      }
  return now() - start;
}

int main(int count, char **arguments) {
  const uint32_t dim = count > 2 ? (uint32_t)atoi(arguments[2]) : 64;
  const uint32_t heads = count > 3 ? (uint32_t)atoi(arguments[3]) : 3;
  const uint32_t rows = count > 4 ? (uint32_t)atoi(arguments[4]) : 16;
  enum { CACHES = 201 };
  for (size_t i = 0; squint_kernels_at(i); i++) {
    const squint_kernels *kernels = squint_kernels_at(i);
    if (!squint_kernels_supported(kernels) || (count > 1 && strcmp(arguments[1], kernels->name) != 0))
      continue;
    const half_cache k = filled(kernels, CACHES, dim, 3), v = filled(kernels, CACHES, dim, 1);
    const size_t numbers = (size_t)CHUNK * heads * dim;
    float *q = malloc(numbers * sizeof(float)), *out = malloc(numbers * sizeof(float));
    float *scratch = malloc(squint_attention_scratch(dim) * sizeof(float));
    for (size_t j = 0; j < numbers; j++)
      q[j] = 2 * number(j + 7);
    const squint_attention a = {.q = q,
                                .q_token_stride = (size_t)heads * dim,
                                .q_head_stride = dim,
                                .heads = heads,
                                .head_dim = dim,
                                .kv_stride = dim,
                                .scale_stride = (dim + 31) / 32,
                                .kv_type = SQUINT_INT8,
                                .scale = 1 / sqrtf((float)dim),
                                .out = out,
                                .out_token_stride = (size_t)heads * dim,
                                .out_head_stride = dim};
    double best[3] = {1e9, 1e9, 1e9};
    for (int pass = 0; pass < PASSES; pass++) {
      const double seconds[3] = {prefill(kernels, &a, k, v, rows, scratch), decode(kernels, &a, k, v, 3, scratch),
                                 decode(kernels, &a, k, v, CACHES, scratch)};
      for (int j = 0; j < 3; j++)
        best[j] = seconds[j] < best[j] ? seconds[j] : best[j];
    }
    printf("%-10s prefill: %6.2f ns for 16 pairs; decode: %6.2f ns a position, %6.2f from memory\n", kernels->name,
           best[0] * 16e9 / ((double)POSITIONS * POSITIONS / 2 * heads), best[1] * 1e9 / (3. * POSITIONS),
           best[2] * 1e9 / ((double)CACHES * POSITIONS));
    free(k.numbers), free(k.scales), free(v.numbers), free(v.scales), free(q), free(out), free(scratch);
  }
}
