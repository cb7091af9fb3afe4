// What Swift does not reach of the C library.
#ifndef SQUINT_SYSTEM_H
#define SQUINT_SYSTEM_H

#include <stdint.h>

// The program's arguments as main has them: its name first, NULL behind the last; as the C library hands them to a
// program that starts. NULL where this system does not say.
//
// Swift's CommandLine reads them from /proc/self/cmdline on Linux: where /proc is not mounted (a chroot, an early boot)
// it has none, and it repairs what is not UTF-8, which file names need not be.
char *const *squint_arguments(void);

// The processors that the scheduler may run this process on; 0 where the system does not say.
int squint_allowed_processors(void);

// The memory that nobody uses, without what the page cache would give back, in bytes; 0 where the system does not say.
uint64_t squint_free_memory(void);

// The path by which the kernel started this program; NULL where the system does not say.
const char *squint_program_path(void);

// An empty file that is nowhere but in memory; -1, with errno, where there can be none.
int squint_memory_file(void);

// Starts the program at `path` with `arguments` (its name first, NULL behind the last), these descriptors as its stdin,
// stdout and stderr, and nothing else of this process but its environment; 0, or an error number. The descriptors must be
// above 2.
int squint_spawn(const char *path, char *const *arguments, int input, int output, int errors, int *process);

// Two ends of a pipe that programs do not inherit; -1, with errno, where there can be none.
int squint_pipe(int ends[2]);

// Lets this process have as many files open at a time as the system allows it.
void squint_allow_more_open_files(void);

#endif
