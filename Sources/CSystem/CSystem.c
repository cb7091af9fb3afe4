#define _GNU_SOURCE // sched_getaffinity
#include "CSystem.h"
#include <stddef.h>
#include <stdlib.h> // defines __GLIBC__
#include <sys/resource.h>

static char *const *arguments = NULL;

char *const *squint_arguments(void) { return arguments; }

// glibc and Darwin call constructors with what main gets; others (musl) call them without.
#if defined(__GLIBC__) || defined(__APPLE__)
__attribute__((constructor)) static void keep_arguments(int count, char *const *values) {
  (void)count;
  arguments = values;
}
#endif

#ifdef __linux__
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

int squint_allowed_processors(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

uint64_t squint_free_memory(void) {
  struct sysinfo info;
  return sysinfo(&info) == 0 ? ((uint64_t)info.freeram + info.bufferram) * info.mem_unit : 0;
}

const char *squint_program_path(void) { return (const char *)getauxval(AT_EXECFN); }

int squint_memory_file(void) { return memfd_create("squint", MFD_CLOEXEC); }
#else
#include <fcntl.h>
#include <stdio.h>

int squint_allowed_processors(void) { return 0; }
uint64_t squint_free_memory(void) { return 0; }
const char *squint_program_path(void) { return NULL; }

int squint_memory_file(void) {
  FILE *file = tmpfile();
  if (!file)
    return -1;
  int descriptor = fcntl(fileno(file), F_DUPFD_CLOEXEC, 0);
  fclose(file);
  return descriptor;
}
#endif

void squint_allow_more_open_files(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
    return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}
