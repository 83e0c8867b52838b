// Progress on standard error: one line redrawn on a terminal, a line every few seconds elsewhere, nothing when quiet.
#pragma once

#include <string>
#include <string_view>

#include "base/clock.h"

namespace sparsam {

class Progress {
 public:
  // `what` heads each line: "train", "score".
  explicit Progress(std::string what, bool quiet = false);
  ~Progress() { finish(); }
  // fraction in [0, 1] of the work done, `detail` is appended: "loss 3.21  5,300 tokens/s". Time left is estimated from
  // the time used so far.
  void update(double fraction, std::string_view detail);
  void finish();  // ends the redrawn line

 private:
  std::string what_;
  bool quiet_, terminal_, drawn_ = false;
  Stopwatch clock_;
  double last_seconds_ = -1e9;
};

bool colour_allowed(int descriptor);          // a terminal, and neither NO_COLOR nor TERM=dumb is set
std::string format_duration(double seconds);  // "42 s", "3 min 05 s", "2 h 10 min"
std::string format_count(double count);       // "1,234,567"
std::string format_bytes(double bytes);       // "12.3 MB" (decimal)

}  // namespace sparsam
