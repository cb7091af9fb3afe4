// The quantized types; and which of the compiled instruction sets this CPU has, and this operating system saves the
// registers of.
#include "internal.h"

static const squint_kernels *const tables[] = {
#if defined(__x86_64__)
    &squint_kernels_avx512vnni, &squint_kernels_avxvnni, &squint_kernels_avx2,
#elif defined(__aarch64__)
    &squint_kernels_i8mm, &squint_kernels_dotprod, &squint_kernels_neon,
#endif
    &squint_kernels_generic};

const squint_kernels *squint_kernels_at(size_t index) {
  return index < sizeof tables / sizeof *tables ? tables[index] : NULL;
}

#define HEADER_FUNCTION(name, code, group, header)                                                                     \
  static size_t header_bytes_of_##name(uint32_t groups) { return header; }
PANEL_TYPES(HEADER_FUNCTION)

static const squint_panel_type panel_types[] = {
#define PANEL_TYPE_ROW(name, code, group, header) {code, group, header_bytes_of_##name},
    PANEL_TYPES(PANEL_TYPE_ROW)};

const squint_panel_type *squint_panel_types_at(size_t index) {
  return index < sizeof panel_types / sizeof *panel_types ? &panel_types[index] : NULL;
}

#if defined(__x86_64__)
#include <cpuid.h>

static bool bit(uint32_t word, int position) { return word >> position & 1; }

bool squint_kernels_supported(const squint_kernels *kernels) {
  if (kernels == &squint_kernels_generic)
    return true;
  uint32_t a, b, c, d;
  // Leaf 1: FMA (ecx 12), OSXSAVE (27), AVX (28), F16C (29).
  if (!__get_cpuid(1, &a, &b, &c, &d) || !bit(c, 12) || !bit(c, 27) || !bit(c, 28) || !bit(c, 29))
    return false;
  uint32_t saved, high;
  __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  if ((saved & 0x06) != 0x06) // xmm, ymm
    return false;
  // Leaf 7: AVX2 (ebx 5), AVX-512 F (ebx 16), BW (ebx 30), VL (ebx 31), VNNI (ecx 11); leaf 7.1: AVX-VNNI (eax 4).
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !bit(b, 5))
    return false;
  if (kernels == &squint_kernels_avx2)
    return true;
  if (kernels == &squint_kernels_avx512vnni)
    return bit(b, 16) && bit(b, 30) && bit(b, 31) && bit(c, 11) && (saved & 0xe0) == 0xe0; // masks, zmm
  return kernels == &squint_kernels_avxvnni && a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && bit(a, 4);
}

#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

bool squint_kernels_supported(const squint_kernels *kernels) {
  // Linux' HWCAP_ASIMDDP, and HWCAP2_I8MM, which C libraries older than the CPUs do not name.
  const bool dotprod = getauxval(AT_HWCAP) >> 20 & 1, i8mm = getauxval(AT_HWCAP2) >> 13 & 1;
  if (kernels == &squint_kernels_i8mm)
    return dotprod && i8mm;
  if (kernels == &squint_kernels_dotprod)
    return dotprod;
  return kernels == &squint_kernels_neon || kernels == &squint_kernels_generic;
}

#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

static bool has(const char *name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}

bool squint_kernels_supported(const squint_kernels *kernels) {
  if (kernels == &squint_kernels_i8mm)
    return has("hw.optional.arm.FEAT_DotProd") && has("hw.optional.arm.FEAT_I8MM");
  if (kernels == &squint_kernels_dotprod)
    return has("hw.optional.arm.FEAT_DotProd");
  return kernels == &squint_kernels_neon || kernels == &squint_kernels_generic;
}

#else
bool squint_kernels_supported(const squint_kernels *kernels) { return kernels == &squint_kernels_generic; }
#endif
