// Linked into the unit tests that are not marked THREADS (cmake/polyad.cmake): taking the place of
// the C library's function, it ends a test that starts a thread, so that none is left out of the
// ThreadSanitizer build by mistake.
#include <pthread.h>

#include <cstdio>
#include <cstdlib>

extern "C" int pthread_create(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*) noexcept {
  std::fputs("this test starts a thread: mark it THREADS in its CMakeLists.txt\n", stderr);
  std::abort();
}
