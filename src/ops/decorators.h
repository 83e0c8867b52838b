// Decorators: backends around another backend, each written once for all operations. None owns the inner one.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ops/ops.h"

namespace sparsam {

// One element of a result that lies outside its tolerance.
struct Mismatch {
  std::string_view operation;  // "Matmul"
  std::string field;           // "y"
  i64 index;                   // of the element, row-major
  double found, expected, tolerance;

  std::string text() const;
};

// What the reference makes of an operation's operands, with a tolerance for each element computed from them: the
// reference runs in an arithmetic that carries the error bound of float32 (reference/bounded.h). Where bf16 is allowed,
// an operation may be right with its factors rounded or with none rounded.
class Expectation {
 public:
  using Report = std::function<void(const Mismatch&)>;

  explicit Expectation(const Op& op);  // before the operation runs: results may lie on operands or be added to
  Expectation(Expectation&&) noexcept;
  ~Expectation();
  // After it ran: reports the first wrong element of each result.
  void compare(const Report& report) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Compares every result with the reference's. Slow: for tests and for hunting a wrong kernel.
class Checked final : public Backend {
 public:
  explicit Checked(Backend& inner);  // a mismatch is an Error
  Checked(Backend& inner, Expectation::Report report) : inner_(inner), report_(std::move(report)) {}
  void run(const Op& op) override;

 private:
  Backend& inner_;
  Expectation::Report report_;
};

// What the operations of one name came to.
struct Usage {
  std::string_view operation;
  i64 calls = 0, flops = 0, bytes = 0;  // bytes: the least that had to be moved
  double seconds = 0;                   // 0 where nobody measured
};
// One line an operation, the slowest first: calls, seconds, share, GFLOP/s, GB/s.
std::string usage_table(std::span<const Usage> usage);

// Counts calls, flops and bytes.
class Counted final : public Backend {
 public:
  explicit Counted(Backend& inner);
  void run(const Op& op) override;
  std::vector<Usage> usage() const;  // of the operations that ran, in the order of Op
  void reset();

 private:
  Backend& inner_;
  std::vector<Usage> usage_;  // by Op::index()
};

// Counts and takes the time.
class Timed final : public Backend {
 public:
  explicit Timed(Backend& inner);
  void run(const Op& op) override;
  std::vector<Usage> usage() const;
  void reset();

 private:
  Backend& inner_;
  std::vector<Usage> usage_;
};

}  // namespace sparsam
