#include <algorithm>
#include <array>
#include <optional>

#include "text/jinja_syntax.h"

namespace sparsam::jinja {

namespace {

using Kind = Token::Kind;

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  Lexer(std::string_view source, std::string where) : where_(std::move(where)) {
    // Every kind of line end is a newline, and the last one is dropped.
    for (size_t i = 0; i < source.size(); ++i) {
      const bool is_return = source[i] == '\r';
      if (is_return && i + 1 < source.size() && source[i + 1] == '\n') ++i;
      source_ += is_return ? '\n' : source[i];
    }
    if (source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const size_t open = find_open();
      std::string_view data = std::string_view(source_).substr(at_, open - at_);
      if (open == source_.size()) {
        add_data(data, data.size());
        break;
      }
      const char kind = source_[open + 1], sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
      const size_t whole = data.size();
      if (sign == '-')
        data = strip_right(data);
      else if (sign != '+' && kind != '{')
        data = without_indent(data);
      add_data(data, whole);
      at_ = open + 2 + (sign == '-' || sign == '+');
      if (kind == '#')
        skip_comment();
      else
        tag(kind == '%');
      line_starts_ = source_[at_ - 1] == '\n';
    }
    add(Kind::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void refuse(std::string_view text) const { fail("{}: line {}: {}", where_, line_, text); }

  void add(Kind kind, std::string_view text) { tokens_.push_back({kind, std::string(text), line_}); }
  void add_data(std::string_view data, size_t whole) {
    if (!data.empty()) add(Kind::data, data);
    pass(whole);
  }
  void pass(size_t bytes) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + bytes), '\n'));
    at_ += bytes;
  }
  bool next_is(std::string_view text) const { return std::string_view(source_).substr(at_).starts_with(text); }

  size_t find_open() const {
    for (size_t at = source_.find('{', at_); at != source_.npos && at + 1 < source_.size();
         at = source_.find('{', at + 1))
      if (source_[at + 1] == '{' || source_[at + 1] == '%' || source_[at + 1] == '#') return at;
    return source_.size();
  }

  // Without the spaces between the beginning of the line and the tag.
  std::string_view without_indent(std::string_view data) const {
    const size_t begin = data.rfind('\n') + 1;  // npos + 1 is 0
    if (begin == 0 && !line_starts_) return data;
    return strip_left(data.substr(begin)).empty() ? data.substr(0, begin) : data;
  }

  void skip_comment() {
    const size_t close = source_.find("#}", at_);
    if (close == source_.npos) refuse("a comment has no end '#}'");
    const char sign = close > at_ ? source_[close - 1] : ' ';
    pass(close + 2 - at_);
    after_block(sign);
  }
  // '-' drops the whitespace that follows, nothing a newline, '+' nothing.
  void after_block(char sign) {
    if (sign == '-')
      skip_whitespace();
    else if (sign != '+' && next_is("\n"))
      pass(1);
  }
  void skip_whitespace() {
    while (at_ < source_.size()) {
      const size_t bytes = whitespace_at(source_, at_);
      if (bytes == 0) break;
      pass(bytes);
    }
  }

  // The tokens up to the end of a block or a print, and what its sign says about the whitespace behind.
  void tag(bool block) {
    const std::string_view close = block ? "%}" : "}}";
    const int begin = line_;
    add(block ? Kind::block_begin : Kind::print_begin, block ? "{%" : "{{");
    for (;;) {
      skip_whitespace();
      if (at_ >= source_.size()) {
        line_ = begin;
        refuse(fmt::format("a tag has no end '{}'", close));
      }
      // Brackets open within the tag may hold a dictionary that ends in the same characters.
      const char sign = source_[at_];
      const bool signed_end =
          (sign == '-' || (sign == '+' && block)) && std::string_view(source_).substr(at_ + 1).starts_with(close);
      if (open_.empty() && (signed_end || next_is(close))) {
        add(block ? Kind::block_end : Kind::print_end, close);
        pass(close.size() + signed_end);
        if (block)
          after_block(signed_end ? sign : ' ');
        else if (signed_end)
          skip_whitespace();
        return;
      }
      token();
    }
  }

  void token() {
    const char c = source_[at_];
    size_t length = 1;
    if (is_letter(c)) {
      while (at_ + length < source_.size() && (is_letter(source_[at_ + length]) || is_digit(source_[at_ + length])))
        ++length;
      add(Kind::name, std::string_view(source_).substr(at_, length));
      at_ += length;
    } else if (is_digit(c)) {
      number();
    } else if (c == '\'' || c == '"') {
      text(c);
    } else {
      symbol();
    }
  }

  void number() {
    size_t end = at_;
    const auto digits = [&] {
      while (end < source_.size() && (is_digit(source_[end]) || source_[end] == '_')) ++end;
    };
    digits();
    const auto digit_at = [&](size_t at) { return at < source_.size() && is_digit(source_[at]); };
    bool real = false;
    if (end < source_.size() && source_[end] == '.' && digit_at(end + 1)) real = true, ++end, digits();
    const size_t sign = end + 1 < source_.size() && (source_[end + 1] == '-' || source_[end + 1] == '+');
    if (end < source_.size() && (source_[end] | 0x20) == 'e' && digit_at(end + 1 + sign))
      real = true, end += 1 + sign, digits();
    if (end < source_.size() && is_letter(source_[end])) refuse("a number that a letter follows is not supported");
    std::string number = source_.substr(at_, end - at_);
    std::erase(number, '_');
    add(real ? Kind::real : Kind::integer, number);
    at_ = end;
  }

  void symbol() {
    constexpr std::string_view symbols[] = {"//", "**", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<",
                                            ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", ".", ":", "|", ","};
    const auto found =
        std::find_if(std::begin(symbols), std::end(symbols), [&](std::string_view s) { return next_is(s); });
    if (found == std::end(symbols))
      refuse(fmt::format("'{}' is no part of an expression", printable(source_.substr(at_, 1))));
    const char c = (*found)[0];
    if (c == '(' || c == '[' || c == '{') {
      if (open_.size() >= most_syntax_depth) refuse("brackets stand too deep within each other");
      open_ += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (open_.empty() || open_.back() != c)
        refuse(fmt::format("found '{}', expected {}", c,
                           open_.empty() ? "no bracket to close" : fmt::format("'{}'", open_.back())));
      open_.pop_back();
    }
    add(Kind::symbol, *found);
    at_ += found->size();
  }

  // A quoted text with Python's escapes.
  void text(char quote) {
    std::string out;
    const int begin = line_;
    size_t at = at_ + 1;
    for (; at < source_.size() && source_[at] != quote; ++at) {
      if (source_[at] == '\\' && at + 1 < source_.size())
        at = escape(at + 1, out);
      else
        out += source_[at];
    }
    if (at >= source_.size()) refuse(fmt::format("a text has no end {}", quote));
    pass(at + 1 - at_);
    tokens_.push_back({Kind::text, std::move(out), begin});
  }
  // The escape behind a backslash at `at`; returns its last character's place.
  size_t escape(size_t at, std::string& out) const {
    constexpr std::string_view names = "\\'\"abfnrtv", values = "\\'\"\a\b\f\n\r\t\v";
    const char c = source_[at];
    if (const size_t found = names.find(c); found != names.npos) {
      out += values[found];
    } else if (c == '\n') {  // a line that goes on
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      u32 code = 0;
      for (size_t i = 0; i < digits; ++i) {
        const char digit = at + 1 < source_.size() ? source_[++at] : '?';
        const size_t value =
            std::string_view("0123456789abcdef").find(static_cast<char>(is_letter(digit) ? digit | 0x20 : digit));
        if (value == std::string_view::npos)
          refuse(fmt::format("the escape \\{} needs {} hexadecimal digits", c, digits));
        code = code * 16 + static_cast<u32>(value);
      }
      append_character(out, code);
    } else if (c >= '0' && c <= '7') {
      refuse("octal escapes are not supported");
    } else {
      out.append({'\\', c});
    }
    return at;
  }
  void append_character(std::string& out, u32 code) const {
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) refuse(fmt::format("\\u{:x} is no character", code));
    if (code < 0x80) {
      out += static_cast<char>(code);
      return;
    }
    const int rest = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    constexpr std::array<u32, 4> marks{0, 0xc0, 0xe0, 0xf0};
    out += static_cast<char>(marks[static_cast<size_t>(rest)] | code >> (6 * rest));
    for (int i = rest; i-- > 0;) out += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3f));
  }

  std::string source_, where_, open_;  // open_: the brackets that are to close
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;  // nothing but the end of a line stands before `at_`
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& where) { return Lexer(source, where).run(); }

}  // namespace sparsam::jinja
