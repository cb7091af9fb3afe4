// How fast the quantized product is: all 211 matrices of SmolLM2-135M, with one token and with many.
//
//     clang -std=c11 -O2 -I Sources/CKernels/include Sources/CKernels/*.c tools/kernels/speed.c -lm -lpthread -o speed
//     ./speed [ISA [THREADS [TOKENS]]]        without arguments: every instruction set, 1 and 2 threads, 512 tokens
//
// Prints the best of several passes, in the processor time of the slowest thread, for the machine may be busy: weights
// read per second with one token, and int8 operations (two per weight and token) per second with many.
#define _POSIX_C_SOURCE 200809L
#include "../../Sources/CKernels/internal.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct {
  uint32_t rows, columns;
  uint8_t *weights;
} matrix;

enum { LAYERS = 30, PER_LAYER = 7, MATRICES = LAYERS * PER_LAYER + 1 };
static const uint32_t layer_shapes[PER_LAYER][2] = {{576, 576},  {192, 576},  {192, 576}, {576, 576},
                                                    {1536, 576}, {1536, 576}, {576, 1536}};

typedef struct {
  const squint_kernels *kernels;
  const matrix *matrices;
  uint32_t type, tokens, thread, threads;
  const int8_t *x;
  const float *scales;
  const int32_t *sums;
  float *y;
  double seconds; // of processor time: the result
} work;

static double now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *run(void *argument) {
  work *w = argument;
  const double start = now(CLOCK_THREAD_CPUTIME_ID);
  for (int m = 0; m < MATRICES; m++) {
    const matrix *a = &w->matrices[m];
    const uint32_t panels = a->rows / PANEL_ROWS;
    const uint32_t from = panels * w->thread / w->threads, to = panels * (w->thread + 1) / w->threads;
    squint_product product = {.weights = a->weights,
                              .type = w->type,
                              .rows = a->rows,
                              .groups = a->columns / GROUP_COLUMNS,
                              .tokens = w->tokens,
                              .x = w->x,
                              .x_scales = w->scales,
                              .x_sums = w->sums,
                              .y = w->y,
                              .y_stride = a->rows};
    w->kernels->product(&product, from, to - from);
  }
  w->seconds = now(CLOCK_THREAD_CPUTIME_ID) - start;
  return NULL;
}

static double best_pass(const squint_kernels *kernels, const matrix *matrices, uint32_t type, uint32_t tokens,
                        uint32_t threads, const int8_t *x, const float *scales, const int32_t *sums, float *y,
                        double seconds) {
  double best = 1e9;
  int passes = 0;
  for (double end = now(CLOCK_MONOTONIC) + seconds; passes < 3 || now(CLOCK_MONOTONIC) < end; passes++) {
    pthread_t ids[64];
    work works[64];
    for (uint32_t t = 0; t < threads; t++) {
      works[t] = (work){kernels, matrices, type, tokens, t, threads, x, scales, sums, y, 0};
      if (t > 0)
        pthread_create(&ids[t], NULL, run, &works[t]);
    }
    run(&works[0]);
    double slowest = works[0].seconds;
    for (uint32_t t = 1; t < threads; t++) {
      pthread_join(ids[t], NULL);
      slowest = works[t].seconds > slowest ? works[t].seconds : slowest;
    }
    best = slowest < best ? slowest : best;
  }
  return best;
}

int main(int count, char **arguments) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  const uint32_t tokens = count > 3 ? (uint32_t)atoi(arguments[3]) : 512;
  int8_t *x = aligned_alloc(64, (size_t)tokens * 1536);
  float *scales = aligned_alloc(64, (size_t)tokens * 48 * 4), *y = aligned_alloc(64, (size_t)tokens * 49152 * 4);
  for (size_t i = 0; i < (size_t)tokens * 1536; i++)
    x[i] = (int8_t)(i * 2654435761u >> 9) / 2;
  for (size_t i = 0; i < (size_t)tokens * 48; i++)
    scales[i] = 0.01f;
  int32_t *sums = calloc((size_t)tokens * 48, 4);
  memset(y, 0, (size_t)tokens * 49152 * 4);
  const char *names[] = {"int8", "int4", "int4_f16"};
  for (uint32_t type = SQUINT_INT8; type <= SQUINT_INT4_F16; type++) {
    matrix matrices[MATRICES];
    size_t bytes = 0, weights = 0;
    for (int m = 0; m < MATRICES; m++) {
      matrix *a = &matrices[m];
      a->rows = m == MATRICES - 1 ? 49152 : layer_shapes[m % PER_LAYER][0];
      a->columns = m == MATRICES - 1 ? 576 : layer_shapes[m % PER_LAYER][1];
      size_t size = a->rows / PANEL_ROWS * panel_bytes(type, a->columns / GROUP_COLUMNS);
      a->weights = aligned_alloc(64, size);
      for (size_t i = 0; i < size; i++)
        a->weights[i] = (uint8_t)(i * 2654435761u >> 11) & 0x2f; // as f16: finite
      bytes += size;
      weights += (size_t)a->rows * a->columns;
    }
    for (size_t i = 0; squint_kernels_at(i); i++) {
      const squint_kernels *k = squint_kernels_at(i);
      if (!squint_kernels_supported(k) || (count > 1 && strcmp(arguments[1], k->name) != 0))
        continue;
      const uint32_t asked = count > 2 ? (uint32_t)atoi(arguments[2]) : 0;
      for (uint32_t threads = asked ? asked : 1; threads <= (asked ? asked : 2); threads++) {
        double one = best_pass(k, matrices, type, 1, threads, x, scales, sums, y, 0.4);
        double many = best_pass(k, matrices, type, tokens, threads, x, scales, sums, y, 1.5);
        printf("%-10s %-8s %u threads: %6.1f GB/s, %4.0f passes/s; %u tokens: %.3f TOPS, %5.0f tokens/s\n", k->name,
               names[type - SQUINT_INT8], threads, (double)bytes / one * 1e-9, 1 / one, tokens,
               2 * (double)weights * tokens / many * 1e-12, tokens / many);
      }
    }
    for (int m = 0; m < MATRICES; m++)
      free(matrices[m].weights);
  }
}
