#include <algorithm>
#include <charconv>

#include "text/jinja_functions.h"
#include "text/jinja_syntax.h"

namespace sparsam::jinja {

namespace {

using Kind = Node::Kind;
using TokenKind = Token::Kind;

// Recursive descent; the order of the functions is that of the precedences.
class Parser {
 public:
  Parser(std::vector<Token> tokens, std::string where) : tokens_(std::move(tokens)), where_(std::move(where)) {}

  Node run() {
    Node node = body({});
    if (peek().kind != TokenKind::end) refuse(fmt::format("found '{}', expected the end", printable(peek().text)));
    return node;
  }

 private:
  // ---- Tokens
  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is(TokenKind kind, std::string_view text, size_t ahead = 0) const {
    return peek(ahead).kind == kind && peek(ahead).text == text;
  }
  bool is_symbol(std::string_view text) const { return is(TokenKind::symbol, text); }
  bool is_name(std::string_view text) const { return is(TokenKind::name, text); }
  bool skip_symbol(std::string_view text) { return is_symbol(text) && (next(), true); }
  bool skip_name(std::string_view text) { return is_name(text) && (next(), true); }
  void expect_symbol(std::string_view text) {
    if (!skip_symbol(text)) refuse(fmt::format("found '{}', expected '{}'", printable(peek().text), text));
  }
  std::string expect_name(std::string_view what) {
    if (peek().kind != TokenKind::name) refuse(fmt::format("found '{}', expected {}", printable(peek().text), what));
    return next().text;
  }
  void expect_block_end() {
    if (peek().kind != TokenKind::block_end)
      refuse(fmt::format("found '{}', expected the end of the tag", printable(peek().text)));
    next();
  }

  std::string place() const { return fmt::format("{}: line {}", where_, peek().line); }
  [[noreturn]] void refuse(std::string_view text) const { fail("{}: {}", place(), text); }

  Node make(Kind kind, std::string text, std::vector<Node> children) const {
    Node node{.kind = kind, .line = peek().line, .text = std::move(text), .children = std::move(children)};
    if (!node.children.empty()) node.line = node.children.front().line;
    for (const Node& child : node.children) node.depth = std::max(node.depth, child.depth + 1);
    if (node.depth > most_syntax_depth)
      refuse(fmt::format("more than {} operations within each other", most_syntax_depth));
    return node;
  }
  Node literal(Value value) const { return {.kind = Kind::literal, .line = peek().line, .value = std::move(value)}; }
  // Counts how deep the functions call each other, since brackets do so before any node is made.
  struct Deeper {
    explicit Deeper(Parser& parser) : parser(parser) {
      if (++parser.depth_ > most_syntax_depth) parser.refuse("more than 200 brackets or blocks within each other");
    }
    ~Deeper() { --parser.depth_; }
    Deeper(const Deeper&) = delete;
    Parser& parser;
  };

  // ---- Statements
  // Statements up to a tag of one of these names, which is left unread, or to the end.
  Node body(const std::vector<std::string_view>& ends) {
    const Deeper deeper(*this);
    std::vector<Node> nodes;
    for (;;) {
      const Token& token = peek();
      if (token.kind == TokenKind::end) break;
      if (token.kind == TokenKind::data) {
        nodes.push_back(make(Kind::output, next().text, {}));
      } else if (token.kind == TokenKind::print_begin) {
        next();
        nodes.push_back(make(Kind::print, {}, children(tuple())));
        if (next().kind != TokenKind::print_end)
          --at_, refuse(fmt::format("found '{}', expected '}}}}'", printable(peek().text)));
      } else {
        if (std::any_of(ends.begin(), ends.end(), [&](std::string_view end) { return is(TokenKind::name, end, 1); }))
          break;
        next();
        nodes.push_back(statement());
      }
    }
    if (!ends.empty() && peek().kind == TokenKind::end)
      refuse(fmt::format("the template ends, expected {{% {} %}}", ends.back()));
    return make(Kind::body, {}, std::move(nodes));
  }

  // Reads "{% name %}", one of those at which body() stopped.
  void close(std::string_view name) {
    next();
    if (!skip_name(name)) refuse(fmt::format("found '{}', expected {}", printable(peek().text), name));
    expect_block_end();
  }

  Node statement() {
    const int line = peek().line;
    const std::string tag = peek().kind == TokenKind::name ? peek().text : "";
    const auto known = [&]() -> Node {
      if (skip_name("if")) return branch();
      if (skip_name("for")) return loop();
      if (skip_name("set")) return set();
      if (skip_name("macro")) return macro();
      if (skip_name("generation")) return generation();
      if (tag == "break" || tag == "continue") {
        if (loops_ == 0) refuse(fmt::format("{{% {} %}} outside of a loop", tag));
        next();
        expect_block_end();
        return make(tag == "break" ? Kind::break_loop : Kind::continue_loop, {}, {});
      }
      fail_unknown("tag", printable(peek().text), tag_names(), place());
    };
    Node node = known();
    node.line = line;
    return node;
  }
  static std::vector<std::string> tag_names() {
    return {"if", "for", "set", "macro", "break", "continue", "generation"};
  }

  Node branch() {
    std::vector<Node> parts;
    const std::vector<std::string_view> ends{"elif", "else", "endif"};
    do {
      parts.push_back(condition());
      expect_block_end();
      parts.push_back(body(ends));
    } while (is(TokenKind::name, "elif", 1) && (next(), next(), true));
    if (is(TokenKind::name, "else", 1)) {
      close("else");
      parts.push_back(body({"endif"}));
    }
    close("endif");
    return make(Kind::branch, {}, std::move(parts));
  }

  std::vector<std::string> targets() {
    const bool bracket = skip_symbol("(");
    std::vector<std::string> names{expect_name("the name of a variable")};
    while (skip_symbol(",")) names.push_back(expect_name("the name of a variable"));
    if (bracket) expect_symbol(")");
    return names;
  }

  Node loop() {
    std::vector<std::string> names = targets();
    if (!skip_name("in")) refuse(fmt::format("found '{}', expected 'in'", printable(peek().text)));
    std::vector<Node> parts;
    parts.push_back(tuple(false));  // "if" behind it belongs to the loop
    parts.push_back(skip_name("if") ? condition() : literal({true}));
    if (is_name("recursive")) refuse("recursive loops are not supported");
    expect_block_end();
    ++loops_;
    parts.push_back(body({"else", "endfor"}));
    --loops_;
    if (is(TokenKind::name, "else", 1)) {
      close("else");
      parts.push_back(body({"endfor"}));
    } else {
      parts.push_back(make(Kind::body, {}, {}));
    }
    close("endfor");
    Node node = make(Kind::loop, {}, std::move(parts));
    node.names = std::move(names);
    return node;
  }

  Node set() {
    if (peek().kind == TokenKind::name && is(TokenKind::symbol, ".", 1)) {
      std::vector<std::string> names{next().text};
      next();
      names.push_back(expect_name("the name of an attribute"));
      expect_symbol("=");
      Node node = make(Kind::set_attribute, {}, children(tuple()));
      node.names = std::move(names);
      expect_block_end();
      return node;
    }
    std::vector<std::string> names = targets();
    const bool block = names.size() == 1 && !is_symbol("=");
    std::vector<Node> value;
    if (block) {
      if (is_symbol("|")) refuse("a filter on a block of {% set %} is not supported");
      expect_block_end();
      value.push_back(body({"endset"}));
      close("endset");
    } else {
      expect_symbol("=");
      value.push_back(tuple());
      expect_block_end();
    }
    Node node = make(block ? Kind::set_body : Kind::set, {}, std::move(value));
    node.names = std::move(names);
    return node;
  }

  Node macro() {
    std::string name = expect_name("the name of a macro");
    std::vector<std::string> names;
    std::vector<Node> parts;
    expect_symbol("(");
    while (!is_symbol(")")) {
      names.push_back(expect_name("the name of a parameter"));
      if (skip_symbol("="))
        parts.push_back(condition());
      else if (!parts.empty())
        refuse("a parameter without a default follows one with");
      if (!skip_symbol(",")) break;
    }
    expect_symbol(")");
    expect_block_end();
    const int outer = std::exchange(loops_, 0);
    parts.push_back(body({"endmacro"}));
    loops_ = outer;
    next(), next();
    if (peek().kind == TokenKind::name) next();  // its name may be repeated
    expect_block_end();
    Node node = make(Kind::macro, std::move(name), std::move(parts));
    node.names = std::move(names);
    return node;
  }

  // What the assistant said: marked for training, rendered as it is.
  Node generation() {
    expect_block_end();
    Node node = body({"endgeneration"});
    close("endgeneration");
    return node;
  }

  // ---- Expressions
  template <class... N>
  static std::vector<Node> children(N&&... nodes) {
    std::vector<Node> list;
    (list.push_back(std::forward<N>(nodes)), ...);
    return list;
  }

  // One expression, or a list of several with commas between them.
  Node tuple(bool with_condition = true) {
    const auto one = [&] { return with_condition ? condition() : logic_or(); };
    Node first = one();
    if (!is_symbol(",")) return first;
    std::vector<Node> items = children(std::move(first));
    while (skip_symbol(",") && !at_end()) items.push_back(one());
    return make(Kind::list, {}, std::move(items));
  }
  bool at_end() const {
    const TokenKind kind = peek().kind;
    return kind == TokenKind::block_end || kind == TokenKind::print_end || is_symbol(")");
  }

  Node condition() {
    const Deeper deeper(*this);
    Node node = logic_or();
    while (skip_name("if")) {
      Node when = logic_or();
      Node otherwise = skip_name("else") ? condition() : literal({});
      node = make(Kind::choose, {}, children(std::move(node), std::move(when), std::move(otherwise)));
    }
    return node;
  }
  Node logic_or() {
    Node node = logic_and();
    while (skip_name("or")) node = make(Kind::logic_or, {}, children(std::move(node), logic_and()));
    return node;
  }
  Node logic_and() {
    Node node = logic_not();
    while (skip_name("and")) node = make(Kind::logic_and, {}, children(std::move(node), logic_not()));
    return node;
  }
  Node logic_not() {
    const Deeper deeper(*this);
    if (skip_name("not")) return make(Kind::logic_not, {}, children(logic_not()));
    return comparison();
  }
  Node comparison() {
    std::vector<Node> parts = children(sum());
    for (;;) {
      std::string op;
      for (const std::string_view symbol : {"==", "!=", "<=", ">=", "<", ">"})
        if (op.empty() && skip_symbol(symbol)) op = symbol;
      if (op.empty() && skip_name("in")) op = "in";
      if (op.empty() && is_name("not") && is(TokenKind::name, "in", 1)) next(), next(), op = "not in";
      if (op.empty()) break;
      parts.push_back(make(Kind::link, std::move(op), children(sum())));
    }
    if (parts.size() == 1) return std::move(parts.front());
    return make(Kind::compare, {}, std::move(parts));
  }
  // Operators of one precedence, from the left.
  template <class Operand>
  Node chain(std::initializer_list<std::string_view> operators, Operand operand) {
    Node node = operand();
    for (;;) {
      const auto found = std::find_if(operators.begin(), operators.end(), [&](auto op) { return is_symbol(op); });
      if (found == operators.end()) return node;
      next();
      node = make(Kind::arithmetic, std::string(*found), children(std::move(node), operand()));
    }
  }
  Node sum() {
    return chain({"+", "-"}, [this] { return concatenation(); });
  }
  Node concatenation() {
    return chain({"~"}, [this] { return product(); });
  }
  Node product() {
    return chain({"*", "/", "//", "%"}, [this] { return power(); });
  }
  Node power() {
    return chain({"**"}, [this] { return unary(true); });
  }
  Node unary(bool with_filter) {
    const Deeper deeper(*this);
    const bool negative = skip_symbol("-"), positive = !negative && skip_symbol("+");
    Node node = negative   ? make(Kind::negative, {}, children(unary(false)))
                : positive ? make(Kind::positive, {}, children(unary(false)))
                           : primary();
    node = postfix(std::move(node));
    return with_filter ? filtered(std::move(node)) : node;
  }

  Node primary() {
    const Token& token = next();
    switch (token.kind) {
      case TokenKind::name:
        if (token.text == "true" || token.text == "True") return literal({true});
        if (token.text == "false" || token.text == "False") return literal({false});
        if (token.text == "none" || token.text == "None") return literal({None{}});
        return make(Kind::name, token.text, {});
      case TokenKind::text: {
        std::string text = token.text;
        while (peek().kind == TokenKind::text) text += next().text;
        return literal({std::make_shared<const std::string>(std::move(text))});
      }
      case TokenKind::integer:
        return number<i64>(token.text);
      case TokenKind::real:
        return number<double>(token.text);
      case TokenKind::symbol:
        if (token.text == "(") return parenthesis();
        if (token.text == "[") return make(Kind::list, {}, items("]"));
        if (token.text == "{") return dictionary();
        [[fallthrough]];
      default:
        --at_;
        refuse(fmt::format("found '{}', expected an expression", printable(token.text)));
    }
  }
  template <class Number>
  Node number(const std::string& text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
      refuse(fmt::format("the number {} does not fit", text));
    return literal({value});
  }
  Node parenthesis() {
    if (skip_symbol(")")) return make(Kind::list, {}, {});
    Node node = tuple();
    expect_symbol(")");
    return node;
  }
  std::vector<Node> items(std::string_view close) {
    std::vector<Node> list;
    while (!is_symbol(close)) {
      list.push_back(condition());
      if (!skip_symbol(",")) break;
    }
    expect_symbol(close);
    return list;
  }
  Node dictionary() {
    std::vector<Node> list;
    while (!is_symbol("}")) {
      list.push_back(condition());
      expect_symbol(":");
      list.push_back(condition());
      if (!skip_symbol(",")) break;
    }
    expect_symbol("}");
    return make(Kind::dict, {}, std::move(list));
  }

  Node postfix(Node node) {
    for (;;) {
      if (skip_symbol(".")) {
        node = make(Kind::attribute, expect_name("the name of an attribute"), children(std::move(node)));
      } else if (skip_symbol("[")) {
        node = subscript(std::move(node));
      } else if (is_symbol("(")) {
        node = call(std::move(node));
      } else {
        return node;
      }
    }
  }
  Node subscript(Node base) {
    std::vector<Node> parts = children(std::move(base));
    bool slice = false;
    for (int i = 0; i < 3; ++i) {
      parts.push_back(is_symbol(":") || is_symbol("]") ? literal({None{}}) : condition());
      if (!skip_symbol(":")) break;
      slice = true;
    }
    if (is_symbol(",")) refuse("several subscripts in one pair of brackets are not supported");
    expect_symbol("]");
    while (slice && parts.size() < 4) parts.push_back(literal({None{}}));
    return make(slice ? Kind::slice : Kind::item, {}, std::move(parts));
  }

  std::vector<Node> arguments(std::vector<Node> list) {
    expect_symbol("(");
    while (!is_symbol(")")) {
      if (is_symbol("*") || is_symbol("**")) refuse("unpacked arguments are not supported");
      if (peek().kind == TokenKind::name && is(TokenKind::symbol, "=", 1)) {
        std::string name = next().text;
        next();
        list.push_back(make(Kind::keyword, std::move(name), children(condition())));
      } else {
        list.push_back(condition());
      }
      if (!skip_symbol(",")) break;
    }
    expect_symbol(")");
    return list;
  }
  Node call(Node callee) {
    if (callee.kind == Kind::attribute) require("method", callee.text, method_names());
    return make(Kind::call, {}, arguments(children(std::move(callee))));
  }
  void require(std::string_view what, const std::string& name, const std::vector<std::string>& known) const {
    if (std::find(known.begin(), known.end(), name) == known.end()) fail_unknown(what, printable(name), known, place());
  }

  Node filtered(Node node) {
    for (;;) {
      if (skip_symbol("|")) {
        std::string name = expect_name("the name of a filter");
        require("filter", name, filter_names());
        std::vector<Node> parts = children(std::move(node));
        if (is_symbol("(")) parts = arguments(std::move(parts));
        node = make(Kind::filter, std::move(name), std::move(parts));
      } else if (skip_name("is")) {
        node = test(std::move(node));
      } else if (is_symbol("(")) {
        node = call(std::move(node));
      } else {
        return node;
      }
    }
  }
  Node test(Node node) {
    const bool negated = skip_name("not");
    std::string name = expect_name("the name of a test");
    require("test", name, test_names());
    std::vector<Node> parts = children(std::move(node));
    if (is_symbol("(")) {
      parts = arguments(std::move(parts));
    } else if (starts_operand()) {
      parts.push_back(postfix(primary()));
    }
    Node result = make(Kind::test, std::move(name), std::move(parts));
    return negated ? make(Kind::logic_not, {}, children(std::move(result))) : result;
  }
  // Whether an argument without brackets follows a test: "is divisibleby 3".
  bool starts_operand() const {
    const TokenKind kind = peek().kind;
    if (kind == TokenKind::name) {
      constexpr std::string_view others[] = {"else", "or", "and", "if", "in", "not", "is"};
      return std::find(std::begin(others), std::end(others), peek().text) == std::end(others);
    }
    return kind == TokenKind::text || kind == TokenKind::integer || kind == TokenKind::real || is_symbol("[") ||
           is_symbol("{");
  }

  std::vector<Token> tokens_;
  std::string where_;
  size_t at_ = 0;
  int depth_ = 0, loops_ = 0;
};

}  // namespace

Node parse(std::string_view source, const std::string& where) { return Parser(tokenize(source, where), where).run(); }

}  // namespace sparsam::jinja
