#ifndef SQUINT_SPIN_H
#define SQUINT_SPIN_H

// Tells the core that this is a waiting loop: it saves power and leaves the execution units to a sibling thread.
static inline void squint_spin_hint(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

#endif
