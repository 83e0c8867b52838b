// A probabilistic grammar is a function that walks: it chooses words and writes them, through a Walk. The same function
// then samples texts (Sampler), finds the probability of a given text (Scorer) and yields exact expectations over all
// texts (Expectation).
//
// One rule makes every grammar written so unambiguous: a choice writes its words at once, and no alternative of a
// choice can be taken for another when reading on from that place. So a text determines each choice that made it: there
// is one derivation per text, and -log2 P(text) is the sum over its choices. The Scorer checks the rule wherever it
// reads.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/types.h"

namespace sparsam {

// A piece of text or, in an Expectation, the mean size of the pieces that could stand there (text is empty).
struct Fragment {
  std::string_view text;
  double bytes = 0, spaces = 0;
};
Fragment literal(std::string_view text);

// Words in rows (a word) and columns (its forms). Each cell is written with a space before it.
class Table {
 public:
  // Rows end with a comma; the cells of a row stand between spaces (where there is one column, the row is the cell).
  Table(int columns, std::string_view rows);
  int rows() const { return static_cast<int>(cells_.size()) / columns_; }
  Fragment cell(int row, int column) const;  // row some_row: the mean of the column
  std::span<const std::string> cells() const { return cells_; }

 private:
  int columns_;
  std::vector<std::string> cells_;
  std::vector<Fragment> means_;
};

inline constexpr int some_row = -1;  // a row that was drawn, but not which: all that an Expectation knows

// One alternative: a fragment, or a word drawn uniformly from a column of a table (without the `used` rows).
// `used` must be rows of that table drawn earlier; what they are must not matter to the rest of the grammar but through
// cells of their own row, so that by symmetry the mean of the column stands for them (expectations are linear).
struct Alternative {
  int id;         // what choose() returns; several may share one
  double weight;  // above 0
  Fragment fragment;
  const Table* table = nullptr;
  int column = 0;
  std::vector<int> used = {};
};
Alternative text(int id, double weight, std::string_view text);
Alternative word(int id, double weight, const Table& table, int row, int column);  // row drawn earlier
Alternative draw(int id, double weight, const Table& table, int column, std::vector<int> used = {});

struct Chosen {
  int id;
  int row = some_row;  // where one was drawn
};

class Walk {
 public:
  virtual ~Walk() = default;
  // Chooses an alternative with probability weight / sum of weights, then a word, and writes it.
  virtual Chosen choose(const std::vector<Alternative>& alternatives) = 0;
  virtual void write(const Fragment& fragment) = 0;
  // A part whose text depends on nothing but `key` and whose choices leave no trace: an Expectation computes it once.
  virtual void scope(int key, const std::function<void(Walk&)>& part) {
    static_cast<void>(key);
    part(*this);
  }
  void write(std::string_view text) { write(literal(text)); }
};

// Draws a text.
class Sampler : public Walk {
 public:
  explicit Sampler(Random& random) : random_(random) {}
  Chosen choose(const std::vector<Alternative>& alternatives) override;
  void write(const Fragment& fragment) override { text += fragment.text; }
  using Walk::write;
  std::string text;
  double bits = 0;

 private:
  Random& random_;
};

// Reads a text. Error: the grammar cannot have written it.
class Scorer : public Walk {
 public:
  explicit Scorer(std::string_view text) : text_(text) {}
  Chosen choose(const std::vector<Alternative>& alternatives) override;
  void write(const Fragment& fragment) override;
  using Walk::write;
  bool done() const { return at_ == text_.size(); }
  size_t position() const { return at_; }
  double bits = 0;

 private:
  bool reads(std::string_view fragment) const;  // whole words only
  std::string_view text_;
  size_t at_ = 0;
};

struct Sizes {
  double bits = 0, bytes = 0, spaces = 0;
  Sizes& add(const Sizes& other, double factor = 1.0);
};

// Follows every path of a part once; what a draw gives counts as one path (see Alternative).
class Expectation : public Walk {
 public:
  Expectation() = default;
  // Not a copy: a walk of its own that shares what is known of scopes.
  // NOLINTNEXTLINE(google-explicit-constructor)
  explicit Expectation(Expectation& parent) : scopes_(parent.scopes_) {}
  Chosen choose(const std::vector<Alternative>& alternatives) override;
  void write(const Fragment& fragment) override { path_sizes_.add({0, fragment.bytes, fragment.spaces}); }
  void scope(int key, const std::function<void(Walk&)>& part) override;
  using Walk::write;

  // The mean sizes of `part`, which is called once a path and returns what follows it (beyond this part).
  Sizes mean(const std::function<Sizes(Walk&)>& part);

 private:
  std::vector<std::pair<int, int>> path_;  // (alternative, how many) of each choice on the path
  size_t depth_ = 0;
  double probability_ = 1;
  Sizes path_sizes_;
  std::shared_ptr<std::map<int, Sizes>> scopes_ = std::make_shared<std::map<int, Sizes>>();
};

}  // namespace sparsam
