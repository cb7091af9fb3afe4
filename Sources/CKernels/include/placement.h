#ifndef SQUINT_PLACEMENT_H
#define SQUINT_PLACEMENT_H

#include <stdint.h>
#include <string.h>

// Which processors the calling thread may run on: a bit each. Without effect where the system is not Linux.
enum { SQUINT_PROCESSORS = 1024 };
typedef struct {
  uint64_t bits[SQUINT_PROCESSORS / 64];
} squint_processors;

#if defined(__linux__)
#include <sys/syscall.h>
long syscall(long number, ...); // the C library declares it only beyond standard C

// The processors that the calling thread may run on; none where the system does not say.
static inline squint_processors squint_allowed_processors(void) {
  squint_processors set;
  memset(&set, 0, sizeof set);
  if (syscall(SYS_sched_getaffinity, 0, sizeof set, &set) < 0)
    memset(&set, 0, sizeof set);
  return set;
}
static inline void squint_allow_processors(const squint_processors *set) {
  syscall(SYS_sched_setaffinity, 0, sizeof *set, set);
}
// The processor that the calling thread runs on, or -1.
static inline int squint_current_processor(void) {
  unsigned processor = 0;
  return syscall(SYS_getcpu, &processor, (void *)0, (void *)0) < 0 ? -1 : (int)processor;
}
#else
static inline squint_processors squint_allowed_processors(void) {
  squint_processors set;
  memset(&set, 0, sizeof set);
  return set;
}
static inline void squint_allow_processors(const squint_processors *set) { (void)set; }
static inline int squint_current_processor(void) { return -1; }
#endif

static inline int squint_has_processor(const squint_processors *set, int processor) {
  return (int)(set->bits[processor / 64] >> (processor % 64) & 1);
}
static inline squint_processors squint_only_processor(int processor) {
  squint_processors set;
  memset(&set, 0, sizeof set);
  set.bits[processor / 64] = 1ull << (processor % 64);
  return set;
}

#endif
