#include "text/grammar.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace sparsam {
namespace {

int words_left(const Alternative& a) {
  return a.table == nullptr ? 1 : a.table->rows() - static_cast<int>(a.used.size());
}

double total_weight(const std::vector<Alternative>& alternatives) {
  double total = 0;
  for (const Alternative& a : alternatives) {
    check(a.weight > 0, "an alternative of weight {}", a.weight);
    total += a.weight;
  }
  return total;
}

bool is_used(const Alternative& a, int row) { return std::find(a.used.begin(), a.used.end(), row) != a.used.end(); }

double bits_of(const Alternative& a, double total) { return -std::log2(a.weight / total / words_left(a)); }

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

}  // namespace

Fragment literal(std::string_view text) {
  return {text, static_cast<double>(text.size()), static_cast<double>(std::count(text.begin(), text.end(), ' '))};
}

Table::Table(int columns, std::string_view rows_text) : columns_(columns) {
  const std::string_view ends = columns == 1 ? "," : ", ";
  for (size_t begin = 0; (begin = rows_text.find_first_not_of(", ", begin)) != std::string_view::npos;) {
    const size_t end = std::min(rows_text.find_first_of(ends, begin), rows_text.size());
    cells_.push_back(std::string(" ").append(rows_text.substr(begin, end - begin)));
    begin = end;
  }
  check(cells_.size() % static_cast<size_t>(columns) == 0, "{} cells in rows of {}", cells_.size(), columns);
  for (int c = 0; c < columns; ++c) {
    Fragment mean;
    for (int r = 0; r < rows(); ++r) mean.bytes += cell(r, c).bytes, mean.spaces += cell(r, c).spaces;
    mean.bytes /= rows(), mean.spaces /= rows();
    means_.push_back(mean);
  }
}

Fragment Table::cell(int row, int column) const {
  return row == some_row
             ? means_[column]
             : literal(cells_[static_cast<size_t>(row) * static_cast<size_t>(columns_) + static_cast<size_t>(column)]);
}

Alternative text(int id, double weight, std::string_view text) { return {id, weight, literal(text)}; }
Alternative word(int id, double weight, const Table& table, int row, int column) {
  return {id, weight, table.cell(row, column)};
}
Alternative draw(int id, double weight, const Table& table, int column, std::vector<int> used) {
  return {id, weight, {}, &table, column, std::move(used)};
}

Chosen Sampler::choose(const std::vector<Alternative>& alternatives) {
  const double total = total_weight(alternatives);
  double u = random_.uniform() * total;
  size_t chosen = 0;
  while (chosen + 1 < alternatives.size() && (u -= alternatives[chosen].weight) >= 0) ++chosen;
  const Alternative& a = alternatives[chosen];
  bits += bits_of(a, total);
  if (a.table == nullptr) return write(a.fragment), Chosen{a.id};
  int skip = static_cast<int>(random_.below(static_cast<u64>(words_left(a))));
  int row = 0;
  while (is_used(a, row) || skip-- > 0) ++row;
  write(a.table->cell(row, a.column));
  return {a.id, row};
}

bool Scorer::reads(std::string_view fragment) const {
  if (text_.substr(at_, fragment.size()) != fragment) return false;
  const size_t end = at_ + fragment.size();
  return fragment.empty() || !is_letter(fragment.back()) || end == text_.size() || !is_letter(text_[end]);
}

void Scorer::write(const Fragment& fragment) {
  if (!reads(fragment.text))
    fail("not a story: at byte {} stands '{}', expected '{}'", at_, text_.substr(at_, 20), fragment.text);
  at_ += fragment.text.size();
}

Chosen Scorer::choose(const std::vector<Alternative>& alternatives) {
  const double total = total_weight(alternatives);
  const Alternative* found = nullptr;
  Chosen chosen{0};
  Fragment fragment;
  const auto match = [&](const Alternative& a, int row, const Fragment& candidate) {
    if (!reads(candidate.text)) return;
    check(found == nullptr, "ambiguous grammar: '{}' and '{}'", fragment.text, candidate.text);
    found = &a, chosen = {a.id, row}, fragment = candidate;
  };
  for (const Alternative& a : alternatives) {
    if (a.table == nullptr) match(a, some_row, a.fragment);
    for (int row = 0; a.table != nullptr && row < a.table->rows(); ++row)
      if (!is_used(a, row)) match(a, row, a.table->cell(row, a.column));
  }
  if (found == nullptr) fail("not a story: nothing can begin with '{}' at byte {}", text_.substr(at_, 20), at_);
  bits += bits_of(*found, total);
  write(fragment);
  return chosen;
}

Sizes& Sizes::add(const Sizes& other, double factor) {
  bits += factor * other.bits, bytes += factor * other.bytes, spaces += factor * other.spaces;
  return *this;
}

Chosen Expectation::choose(const std::vector<Alternative>& alternatives) {
  const double total = total_weight(alternatives);
  if (depth_ == path_.size()) path_.emplace_back(0, static_cast<int>(alternatives.size()));
  const Alternative& a = alternatives[static_cast<size_t>(path_[depth_++].first)];
  probability_ *= a.weight / total;
  path_sizes_.bits += bits_of(a, total);
  write(a.table == nullptr ? a.fragment : a.table->cell(some_row, a.column));
  return {a.id};
}

Sizes Expectation::mean(const std::function<Sizes(Walk&)>& part) {
  Sizes sum;
  path_.clear();
  do {
    depth_ = 0, probability_ = 1, path_sizes_ = {};
    const Sizes after = part(*this);
    sum.add(path_sizes_.add(after), probability_);
    while (!path_.empty() && path_.back().first + 1 >= path_.back().second) path_.pop_back();
    if (!path_.empty()) ++path_.back().first;
  } while (!path_.empty());
  return sum;
}

void Expectation::scope(int key, const std::function<void(Walk&)>& part) {
  auto known = scopes_->find(key);
  if (known == scopes_->end()) {
    Expectation inner(*this);
    const Sizes sizes = inner.mean([&](Walk& walk) { return part(walk), Sizes{}; });
    known = scopes_->emplace(key, sizes).first;
  }
  path_sizes_.add(known->second);
}

}  // namespace sparsam
