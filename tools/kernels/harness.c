// Runs kernels on cases from a file, so that a test on one architecture can check the kernels of another under an
// emulator (Tests/SquintComputeTests/KernelCase.swift writes the cases, and reads the outputs).
//
//     harness                  prints the names of the instruction sets that this CPU has, best first
//     harness ISA IN OUT       runs the cases of IN, writes their outputs to OUT one after the other
//
// A case, little-endian: u32 operation, u32 parameters[16], u32 inputs, u32 outputs, then each input and each output as
// u64 length and bytes. Outputs hold what they hold before the call.
#define _POSIX_C_SOURCE 200809L
#include "kernels.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  uint64_t length;
  uint8_t *bytes;
} buffer;

static void fail(const char *message) {
  fprintf(stderr, "harness: %s\n", message);
  exit(1);
}

static bool read_or_end(FILE *file, void *to, size_t length) {
  size_t done = fread(to, 1, length, file);
  if (done != length && !(done == 0 && feof(file)))
    fail("the input ends within a case");
  return done == length;
}

static buffer read_buffer(FILE *file) {
  buffer result;
  if (!read_or_end(file, &result.length, 8) || result.length > (uint64_t)1 << 30)
    fail("bad length");
  // Not a byte more than asked for, so that the address sanitizer sees what lies beyond.
  void *bytes = NULL;
  if (posix_memalign(&bytes, 64, result.length ? result.length : 1) != 0)
    fail("out of memory");
  result.bytes = bytes;
  if (result.length && !read_or_end(file, result.bytes, result.length))
    fail("bad buffer");
  return result;
}

static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static void run(const squint_kernels *k, uint32_t operation, const uint32_t *p, void *const *in, void *const *out) {
  switch (operation) {
  case 0: {
    squint_product product = {.weights = in[0],
                              .type = p[0],
                              .rows = p[1],
                              .groups = p[2],
                              .tokens = p[3],
                              .x = in[1],
                              .x_scales = in[2],
                              .x_sums = in[3],
                              .y = out[0],
                              .y_stride = p[4],
                              .accumulate = p[5]};
    return k->product(&product, p[6], p[7]);
  }
  case 1:
    return k->quantize(in[0], p[0], out[0], out[1], out[2]);
  case 2: {
    squint_plain_product product = {.weights = in[0],
                                    .type = p[0],
                                    .rows = p[1],
                                    .columns = p[2],
                                    .tokens = p[3],
                                    .x = in[1],
                                    .x_stride = p[4],
                                    .y = out[0],
                                    .y_stride = p[5],
                                    .accumulate = p[6]};
    return k->plain_product(&product, p[7], p[8]);
  }
  case 3:
    return k->f16_to_f32(in[0], out[0], p[0]);
  case 4:
    return k->bf16_to_f32(in[0], out[0], p[0]);
  case 5:
    return k->f32_to_f16(in[0], out[0], p[0]);
  case 6:
    return k->f32_to_int8(in[0], p[0], out[0], out[1]);
  case 7: {
    squint_attention attention = {.q = in[0],
                                  .q_token_stride = p[0],
                                  .q_head_stride = p[1],
                                  .heads = p[2],
                                  .head_dim = p[3],
                                  .k = in[1],
                                  .v = in[2],
                                  .k_scales = in[3],
                                  .v_scales = in[4],
                                  .kv_stride = p[4],
                                  .scale_stride = p[5],
                                  .kv_type = p[6],
                                  .positions = p[7],
                                  .seen = p[8] ? in[5] : NULL,
                                  .scale = float_of(p[11]),
                                  .out = out[0],
                                  .out_token_stride = p[12],
                                  .out_head_stride = p[13],
                                  .statistics = out[2]};
    return k->attention(&attention, p[14], p[15], out[1]);
  }
  case 8:
    return k->rms_norm(in[0], in[1], out[0], p[0], float_of(p[1]));
  case 9:
    return k->rotary(out[0], p[0], p[1], p[2], in[0], in[1]);
  case 10:
    return k->silu_multiply(in[0], in[1], out[0], p[0]);
  case 11:
    return k->add(in[0], in[1], out[0], p[0]);
  case 12:
    return k->softmax(in[0], p[0], float_of(p[1]), (squint_rounded){out[0], out[1], out[2]},
                      (squint_rounded){out[3], out[4], out[5]});
  case 13:
    return k->exponential(in[0], out[0], p[0]);
  case 14:
    return k->layer_norm(in[0], in[1], in[2], out[0], p[0], float_of(p[1]));
  case 15:
    return k->gelu(out[0], p[0]);
  case 16:
    return k->gelu_tanh(out[0], p[0]);
  case 17:
    return k->quick_gelu(out[0], p[0]);
  case 18:
    return k->relu(out[0], p[0]);
  case 19:
    return k->silu(out[0], p[0]);
  case 20:
    return k->pack_rows(in[0], p[0], p[1], p[2], out[0]);
  case 21:
    return k->pack_columns(in[0], p[0], p[1], p[2], p[3], out[0]);
  case 22:
    return k->hadamard(out[0], p[0], p[1], p[2]);
  case 23:
    return k->multiply(in[0], in[1], out[0], p[0]);
  }
  fail("unknown operation");
}

int main(int count, char **arguments) {
  const squint_kernels *kernels = NULL;
  for (size_t i = 0; squint_kernels_at(i); i++) {
    const squint_kernels *table = squint_kernels_at(i);
    if (!squint_kernels_supported(table))
      continue;
    if (count == 1)
      puts(table->name);
    else if (strcmp(table->name, arguments[1]) == 0)
      kernels = table;
  }
  if (count == 1)
    return 0;
  if (count != 4)
    fail("usage: harness [ISA IN OUT]");
  if (!kernels)
    fail("this CPU does not have that instruction set");
  FILE *input = fopen(arguments[2], "rb"), *output = fopen(arguments[3], "wb");
  if (!input || !output)
    fail("cannot open the files");
  uint32_t head[19];
  while (read_or_end(input, head, sizeof head)) {
    buffer in[8], out[8];
    void *in_bytes[8], *out_bytes[8];
    if (head[17] > 8 || head[18] > 8)
      fail("too many buffers");
    for (uint32_t i = 0; i < head[17]; i++)
      in_bytes[i] = (in[i] = read_buffer(input)).bytes;
    for (uint32_t i = 0; i < head[18]; i++)
      out_bytes[i] = (out[i] = read_buffer(input)).bytes;
    run(kernels, head[0], head + 1, in_bytes, out_bytes);
    for (uint32_t i = 0; i < head[17]; i++)
      free(in[i].bytes);
    for (uint32_t i = 0; i < head[18]; i++) {
      if (fwrite(out[i].bytes, 1, out[i].length, output) != out[i].length)
        fail("cannot write the outputs");
      free(out[i].bytes);
    }
  }
  if (fclose(output) != 0)
    fail("cannot write the outputs");
}
