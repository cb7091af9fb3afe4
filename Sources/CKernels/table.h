// The table of an instruction set. ISA: its name.
#define STRING_(x) #x
#define STRING(x) STRING_(x)
#define TABLE_(isa) squint_kernels_##isa
#define TABLE(isa) TABLE_(isa)

static void attention(const squint_attention *a, uint32_t first_token, uint32_t tokens, float *scratch) {
  switch (a->kv_type) {
  case SQUINT_F32:
    return attention_f32(a, first_token, tokens, scratch);
  case SQUINT_F16:
    return attention_f16(a, first_token, tokens, scratch);
  case SQUINT_INT8:
    return attention_int8(a, first_token, tokens, scratch);
  }
  __builtin_trap();
}

const squint_kernels TABLE(ISA) = {
    .name = STRING(ISA),
    .product = product,
    .repeat_dots = repeat_dots,
    .quantize = quantize,
    .plain_product = plain_product,
    .f16_to_f32 = f16_to_f32,
    .bf16_to_f32 = bf16_to_f32,
    .f32_to_f16 = f32_to_f16,
    .f32_to_int8 = f32_to_int8,
    .pack_rows = pack_rows,
    .pack_columns = pack_columns,
    .attention = attention,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .rotary = rotary,
    .hadamard = hadamard,
    .silu_multiply = silu_multiply,
    .gelu = gelu,
    .gelu_tanh = gelu_tanh,
    .quick_gelu = quick_gelu,
    .relu = relu,
    .silu = silu,
    .add = add,
    .multiply = multiply,
    .softmax = softmax,
    .exponential = exponential,
};
