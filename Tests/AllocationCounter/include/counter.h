#ifndef SQUINT_ALLOCATION_COUNTER_H
#define SQUINT_ALLOCATION_COUNTER_H

#include <stdbool.h>
#include <stddef.h>

// How often this thread has asked the C library for memory (Swift's own allocations included). Starts at 0.
size_t squint_allocations(void);

// Whether this program counts: not where a sanitizer has replaced the allocator, nor on other C libraries than glibc.
bool squint_counts_allocations(void);

#endif
