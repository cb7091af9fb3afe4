#define _GNU_SOURCE // sched_getaffinity
#include "CSystem.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdlib.h> // defines __GLIBC__
#include <sys/resource.h>
#include <unistd.h>

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

extern char **environ;

int squint_spawn(const char *path, char *const *arguments, int input, int output, int errors, int *process) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  int code = posix_spawn_file_actions_init(&actions);
  if (code)
    return code;
  code = posix_spawnattr_init(&attributes);
  if (code) {
    posix_spawn_file_actions_destroy(&actions);
    return code;
  }
  // Signals as a program expects them: this one ignores, or blocks, some.
  sigset_t none, usual;
  sigemptyset(&none);
  sigemptyset(&usual);
  sigaddset(&usual, SIGPIPE);
  sigaddset(&usual, SIGINT);
  sigaddset(&usual, SIGTERM);
  sigaddset(&usual, SIGHUP);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &usual);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  code = posix_spawn_file_actions_adddup2(&actions, input, 0);
  if (!code)
    code = posix_spawn_file_actions_adddup2(&actions, output, 1);
  if (!code)
    code = posix_spawn_file_actions_adddup2(&actions, errors, 2);
  pid_t started = 0;
  if (!code)
    code = posix_spawn(&started, path, &actions, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  *process = started;
  return code;
}

// A descriptor above 2 in the place of `descriptor`.
static int above_standard(int descriptor) {
  int other = fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
  close(descriptor);
  return other;
}

int squint_pipe(int ends[2]) {
  if (pipe(ends) != 0)
    return -1;
  ends[0] = above_standard(ends[0]);
  ends[1] = above_standard(ends[1]);
  if (ends[0] >= 0 && ends[1] >= 0)
    return 0;
  int code = errno;
  for (int end = 0; end < 2; end++) {
    if (ends[end] >= 0)
      close(ends[end]);
    ends[end] = -1;
  }
  errno = code;
  return -1;
}
