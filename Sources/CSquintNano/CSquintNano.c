#define _GNU_SOURCE // dl_iterate_phdr
#include "CSquintNano.h"

// The assembler's reading the file is unknown to the build; asking for it here makes it a dependency, so that this is
// compiled again when the file changes.
#if !__has_include("squint-nano.squint")
#error "models/squint-nano.squint is missing"
#endif

// It begins with a page, however large pages are: the program maps it from its own file, as it maps any model.
__asm__(
#ifdef __APPLE__
    ".section __TEXT,__squint_nano\n"
#else
    ".section .squint_nano,\"a\"\n"
#endif
    ".globl squint_nano, squint_nano_end\n"
    ".p2align 16\n"
    "squint_nano: .incbin \"squint-nano.squint\"\n"
    "squint_nano_end: .byte 0\n"
    ".text\n");

extern const char squint_nano[] __asm__("squint_nano"), squint_nano_end[] __asm__("squint_nano_end");

int64_t squint_nano_size(void) { return squint_nano_end - squint_nano; }

#ifdef __linux__
#include <link.h>

static int find(struct dl_phdr_info *program, size_t size, void *offset) {
  (void)size;
  for (int i = 0; i < program->dlpi_phnum; i++) {
    const ElfW(Phdr) *part = &program->dlpi_phdr[i];
    uintptr_t place = (uintptr_t)squint_nano - program->dlpi_addr - part->p_vaddr;
    if (part->p_type == PT_LOAD && place < part->p_filesz) *(int64_t *)offset = (int64_t)(part->p_offset + place);
  }
  return 1; // The program comes first, and then its libraries.
}

int64_t squint_nano_offset(void) {
  int64_t offset = -1;
  dl_iterate_phdr(find, &offset);
  return offset;
}
#else
int64_t squint_nano_offset(void) { return -1; }
#endif
