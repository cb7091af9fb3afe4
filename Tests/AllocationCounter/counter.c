// The allocator's entry points, counted: a program's own malloc takes precedence over the C library's in all of its libraries.
#include "counter.h"
#include <stdlib.h> // which also says whose C library it is

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define REPLACED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(REPLACED)
#include <errno.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static __thread size_t allocations;

size_t squint_allocations(void) { return allocations; }
bool squint_counts_allocations(void) { return true; }

void *malloc(size_t size) {
  allocations++;
  return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  allocations++;
  return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
  allocations++;
  return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
  allocations++;
  return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **out, size_t alignment, size_t size) {
  *out = memalign(alignment, size);
  return *out || size == 0 ? 0 : ENOMEM;
}
#else
size_t squint_allocations(void) { return 0; }
bool squint_counts_allocations(void) { return false; }
#endif
