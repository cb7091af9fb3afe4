// What all instruction sets share: the geometry of panels, and f16 in portable C.
#ifndef SQUINT_INTERNAL_H
#define SQUINT_INTERNAL_H

#include "kernels.h"
#include <math.h>
#include <string.h>

// Panels (PanelLayout.swift).
enum {
  PANEL_ROWS = 16,
  GROUP_COLUMNS = 32,
  BLOCK_GROUPS = 8,
  MAXIMUM_BLOCK_GROUPS = 15, // the last block takes the remainder
  GROUP_BYTES = PANEL_ROWS * GROUP_COLUMNS,
};

static inline uint32_t panel_blocks(uint32_t groups) { return groups < BLOCK_GROUPS ? 1 : groups / BLOCK_GROUPS; }

static inline uint32_t groups_in_block(uint32_t groups, uint32_t block) {
  uint32_t last = panel_blocks(groups) - 1;
  return block < last ? BLOCK_GROUPS : groups - BLOCK_GROUPS * last;
}

static inline size_t aligned_64(size_t bytes) { return (bytes + 63) / 64 * 64; }

// The quantized types (PanelType.swift): TYPE(name, code, bytes of a group's weights, bytes of the header of a block of
// `groups` groups). What they mean is decode_header's and unpack_group's.
#define PANEL_TYPES(TYPE)                                                                                              \
  TYPE(int8, SQUINT_INT8, GROUP_BYTES, aligned_64((size_t)32 * groups))                                                \
  TYPE(int4, SQUINT_INT4, GROUP_BYTES / 2, 64 + aligned_64((size_t)24 * groups))                                       \
  TYPE(int4_f16, SQUINT_INT4_F16, GROUP_BYTES / 2, (size_t)64 * groups)

// Their codes as a type of its own: a switch without `default` over it has to name all of them.
#define PANEL_TYPE_CODE(name, code, group, header) panel_##name = code,
typedef enum { PANEL_TYPES(PANEL_TYPE_CODE) } panel_type;

static inline size_t header_bytes(uint32_t type, uint32_t groups) {
  switch (type) {
#define HEADER_BYTES(name, code, group, header)                                                                        \
  case code:                                                                                                           \
    return header;
    PANEL_TYPES(HEADER_BYTES)
  }
  return 0;
}

// The weights of one group, in bytes.
static inline size_t group_bytes(uint32_t type) {
  switch (type) {
#define GROUP_BYTES_OF(name, code, group, header)                                                                      \
  case code:                                                                                                           \
    return group;
    PANEL_TYPES(GROUP_BYTES_OF)
  }
  return 0;
}

static inline size_t block_bytes(uint32_t type, uint32_t groups) {
  return header_bytes(type, groups) + groups * group_bytes(type);
}

static inline size_t panel_bytes(uint32_t type, uint32_t groups) {
  uint32_t blocks = panel_blocks(groups);
  return (blocks - 1) * block_bytes(type, BLOCK_GROUPS) + block_bytes(type, groups_in_block(groups, blocks - 1));
}

// Where a group of a panel is, in bytes from the panel's start.
typedef struct {
  size_t header, weights;
  uint32_t index; // of the group in its block
} panel_group;

static inline panel_group group_place(uint32_t type, uint32_t groups, uint32_t group) {
  const uint32_t last = panel_blocks(groups) - 1;
  const uint32_t block = group / BLOCK_GROUPS < last ? group / BLOCK_GROUPS : last;
  panel_group place = {.header = block * block_bytes(type, BLOCK_GROUPS), .index = group - block * BLOCK_GROUPS};
  place.weights = place.header + header_bytes(type, groups_in_block(groups, block)) + place.index * group_bytes(type);
  return place;
}

// Attention works on so many cached positions, and at most so many query rows, at a time.
enum { POSITION_TILE = 32, MAXIMUM_ROW_BLOCK = 64 };

static inline size_t padded_head_dim(uint32_t head_dim) { return ((size_t)head_dim + 15) / 16 * 16; }

static inline float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

static inline float float_from_half(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000) << 16;
  uint32_t magnitude = half & 0x7fff;
  if (magnitude < 0x0400) // zero and subnormals: a multiple of 2^-24
    return float_from_bits(bits_of_float((float)magnitude * 0x1p-24f) | sign);
  if (magnitude >= 0x7c00) // infinity, NaN
    return float_from_bits(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  return float_from_bits(sign | ((magnitude << 13) + (112u << 23)));
}

static inline uint16_t half_from_float(float value) {
  uint32_t bits = bits_of_float(value);
  uint32_t sign = bits >> 16 & 0x8000;
  uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) // NaN: keep it quiet
    return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
  if (magnitude >= 0x477ff000) // rounds to 65536 or more
    return (uint16_t)(sign | 0x7c00);
  if (magnitude < 0x38800000) // subnormal: adding 0.5 leaves the multiple of 2^-24, rounded, in the low bits
    return (uint16_t)(sign | (bits_of_float(float_from_bits(magnitude) + 0.5f) - 0x3f000000));
  return (uint16_t)(sign | ((magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

// The tables of the instruction sets, each defined in the file of that name.
extern const squint_kernels squint_kernels_generic;
#if defined(__x86_64__)
extern const squint_kernels squint_kernels_avx2, squint_kernels_avxvnni, squint_kernels_avx512vnni;
#elif defined(__aarch64__)
extern const squint_kernels squint_kernels_neon, squint_kernels_dotprod, squint_kernels_i8mm;
#endif

#endif
