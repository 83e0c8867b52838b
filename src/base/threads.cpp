#include "base/threads.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace sparsam {

void set_threads(int count) { omp_set_num_threads(count > 0 ? count : omp_get_num_procs()); }
int threads() { return omp_get_max_threads(); }

namespace {
// Runs member(0) ... member(team - 1), each on its own thread.
template <class Member>
void run_team(int team, Member&& member) {
  if (team <= 1) return member(0);
#ifdef SPARSAM_STD_THREADS
  std::vector<std::thread> others;
  for (int t = 1; t < team; ++t) others.emplace_back([&member, t] { member(t); });
  member(0);
  for (std::thread& other : others) other.join();
#else
#pragma omp parallel num_threads(team)
  {
    // The runtime may give fewer threads than asked for (nested regions, limits): every member still runs.
    for (int t = omp_get_thread_num(); t < team; t += omp_get_num_threads()) member(t);
  }
#endif
}
}  // namespace

namespace detail {

void run_ranges(i64 count, i64 grain, void* body, RangeFunction call) {
  if (count <= 0) return;
  grain = std::max<i64>(grain, 1);
  const i64 blocks = (count + grain - 1) / grain;
  const int team = static_cast<int>(std::min<i64>(threads(), blocks));
  run_team(team, [&](int t) {
    const i64 begin = blocks * t / team * grain;
    const i64 end = std::min(count, blocks * (t + 1) / team * grain);
    if (begin < end) call(body, t, begin, end);
  });
}

void run_dynamic(i64 count, void* body, IndexFunction call) {
  if (count <= 0) return;
  std::atomic<i64> next{0};
  const int team = static_cast<int>(std::min<i64>(threads(), count));
  run_team(team, [&](int t) {
    for (i64 i = next.fetch_add(1, std::memory_order_relaxed); i < count;
         i = next.fetch_add(1, std::memory_order_relaxed))
      call(body, t, i);
  });
}

}  // namespace detail
}  // namespace sparsam
