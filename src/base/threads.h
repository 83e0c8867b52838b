// Loops over threads. OpenMP carries them (oneDNN uses the same pool); only threads.cpp knows.
// Results never depend on timing: each index range is given to one thread by number, so equal thread counts give equal
// bits. Under ThreadSanitizer (SPARSAM_STD_THREADS) std::thread takes OpenMP's place.
#pragma once

#include <type_traits>
#include <utility>

#include "base/types.h"

namespace sparsam {

// Sets how many threads all loops and oneDNN use; 0 means the machine's processors (the affinity mask's count).
void set_threads(int count);
int threads();

namespace detail {
using RangeFunction = void (*)(void* body, int thread, i64 begin, i64 end);
void run_ranges(i64 count, i64 grain, void* body, RangeFunction call);
using IndexFunction = void (*)(void* body, int thread, i64 index);
void run_dynamic(i64 count, void* body, IndexFunction call);
}  // namespace detail

// Calls body(thread, begin, end) on contiguous ranges that cover [0, count): one range a thread, of at least `grain`
// indices (multiples of `grain` except the last). Use `thread` to reach per-thread partial sums; reduce them in order.
template <class Body>
void parallel_ranges(i64 count, i64 grain, Body&& body) {
  detail::run_ranges(count, grain, &body, [](void* b, int thread, i64 begin, i64 end) {
    (*static_cast<std::remove_reference_t<Body>*>(b))(thread, begin, end);
  });
}

// Calls body(thread, index) for every index in [0, count), next index to the next free thread: for uneven work. Results
// must not depend on which thread ran an index.
template <class Body>
void parallel_dynamic(i64 count, Body&& body) {
  detail::run_dynamic(count, &body, [](void* b, int thread, i64 index) {
    (*static_cast<std::remove_reference_t<Body>*>(b))(thread, index);
  });
}

}  // namespace sparsam
