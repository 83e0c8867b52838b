// The syntax of templates: text to tokens to a tree. The whitespace rules are those that Hugging Face sets for chat
// templates: a newline after a block is dropped (trim_blocks), spaces before one at the beginning of its line are too
// (lstrip_blocks), and so is the last newline of the template.
// Source: jinja2/lexer.py and jinja2/parser.py of Jinja 3.1.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace sparsam::jinja {

struct Token {
  enum class Kind : u8 { data, block_begin, block_end, print_begin, print_end, name, text, integer, real, symbol, end };
  Kind kind;
  std::string text;  // of a text: what it stands for
  int line;
};
// Errors name `where`, the line, and what does not close or is no token.
std::vector<Token> tokenize(std::string_view source, const std::string& where);

struct Node {
  enum class Kind : u8 {
    // Expressions: children are operands; `text` is the operator, the name, the filter.
    literal,    // value
    name,       // text
    list,       // children
    dict,       // key, value, key, value
    attribute,  // child . text
    item,       // child [ child ]
    slice,      // child [ child : child : child ]
    call,       // child ( arguments )
    filter,     // child | text ( arguments )
    test,       // child is text ( arguments )
    keyword,    // an argument text = child
    negative,   // - child
    positive,   // + child
    logic_not,
    logic_and,
    logic_or,
    arithmetic,  // child text child: + - * / // % ** ~
    compare,     // child, then link nodes: == != < <= > >= in, not in
    link,        // text child
    choose,      // child if child else child
    // Statements
    output,         // text, as it is
    print,          // {{ child }}
    body,           // children in order
    branch,         // condition, body, condition, body, ..., and the body of else when their number is odd
    loop,           // names; iterable, condition (or a true literal), body, body of else
    set,            // names = child
    set_attribute,  // names[0].names[1] = child
    set_body,       // names[0] = what the child body renders
    macro,          // text(names): defaults of the last names, then the body
    break_loop,
    continue_loop,
  };
  Kind kind;
  int line = 0;
  std::string text = {};
  std::vector<std::string> names = {};
  std::vector<Node> children = {};
  Value value = {};
  int depth = 1;
};
constexpr int most_syntax_depth = 200;  // nodes within each other

// Errors name `where`, the line, and the construct: unknown tags, filters, tests and methods are refused here already.
Node parse(std::string_view source, const std::string& where);

}  // namespace sparsam::jinja
