#include "text/jinja_render.h"

#include <algorithm>
#include <optional>

#include "text/jinja_functions.h"

namespace sparsam::jinja {

namespace {

using Kind = Node::Kind;

// Calls of macros within expressions within statements, which recurse here.
constexpr int most_render_depth = 600;

class Renderer {
 public:
  Renderer(Fields variables, Runtime& runtime) : runtime_(runtime) { scopes_.push_back(std::move(variables)); }

  std::string run(const Node& tree) {
    execute(tree);
    return std::move(out_);
  }

 private:
  enum class Flow : u8 { on, leave, again };  // leave: {% break %}, again: {% continue %}

  // Names the line in errors, and bounds the recursion.
  struct At {
    At(Renderer& renderer, const Node& node) : renderer(renderer) {
      renderer.runtime_.line = node.line;
      renderer.runtime_.charge(1);
      if (++renderer.depth_ > most_render_depth) renderer.runtime_.refuse("macros call each other too deep");
    }
    ~At() { --renderer.depth_; }
    At(const At&) = delete;
    Renderer& renderer;
  };

  // ---- Statements
  Flow execute(const Node& node) {
    const At at(*this, node);
    switch (node.kind) {
      case Kind::body:
        for (const Node& child : node.children)
          if (const Flow flow = execute(child); flow != Flow::on) return flow;
        break;
      case Kind::output:
        write(node.text);
        break;
      case Kind::print:
        write(to_text(runtime_, evaluate(node.children[0])));
        break;
      case Kind::branch:
        return branch(node);
      case Kind::loop:
        loop(node);
        break;
      case Kind::set:
        assign(node.names, evaluate(node.children[0]));
        break;
      case Kind::set_attribute:
        set_attribute(node);
        break;
      case Kind::set_body:
        assign(node.names, make_text(runtime_, captured(node.children[0])));
        break;
      case Kind::macro:
        set_field(scopes_.back(), node.text, {Macro{&node}});
        break;
      case Kind::break_loop:
        return Flow::leave;
      case Kind::continue_loop:
        return Flow::again;
      default:
        check(false, "an expression as a statement");
    }
    return Flow::on;
  }

  void write(std::string_view text) {
    runtime_.charge(text.size());
    out_ += text;
  }
  std::string captured(const Node& body) {
    std::string outer = std::exchange(out_, {});
    execute(body);
    return std::exchange(out_, std::move(outer));
  }

  Flow branch(const Node& node) {
    const std::vector<Node>& parts = node.children;
    for (size_t i = 0; i + 1 < parts.size(); i += 2)
      if (is_true(evaluate(parts[i]))) return execute(parts[i + 1]);
    return parts.size() % 2 ? execute(parts.back()) : Flow::on;
  }

  void loop(const Node& node) {
    Items all = items_of(runtime_, evaluate(node.children[0]));
    scopes_.emplace_back();
    Items items;
    for (Value& item : all) {
      assign(node.names, item);
      if (is_true(evaluate(node.children[1]))) items.push_back(std::move(item));
    }
    scopes_.pop_back();
    if (items.empty()) {
      execute(node.children[3]);
      return;
    }
    for (size_t i = 0; i < items.size(); ++i) {
      scopes_.emplace_back();
      assign(node.names, items[i]);
      set_field(scopes_.back(), "loop", position(items, i));
      const Flow flow = execute(node.children[2]);
      scopes_.pop_back();
      if (flow == Flow::leave) break;
    }
  }

  // The variable `loop`.
  Value position(const Items& items, size_t i) {
    const auto count = static_cast<i64>(items.size()), index = static_cast<i64>(i);
    Fields fields{{"index", {index + 1}},
                  {"index0", {index}},
                  {"revindex", {count - index}},
                  {"revindex0", {count - index - 1}},
                  {"first", {index == 0}},
                  {"last", {index + 1 == count}},
                  {"length", {count}},
                  {"previtem", i > 0 ? items[i - 1] : Value{}},
                  {"nextitem", i + 1 < items.size() ? items[i + 1] : Value{}}};
    return make_dict(runtime_, std::move(fields));
  }

  void assign(const std::vector<std::string>& names, const Value& value) {
    if (names.size() == 1) return set_field(scopes_.back(), names[0], value);
    const Items items = items_of(runtime_, value);
    if (items.size() != names.size())
      runtime_.refuse(fmt::format("{} values for {} names", items.size(), names.size()));
    for (size_t i = 0; i < names.size(); ++i) set_field(scopes_.back(), names[i], items[i]);
  }

  void set_attribute(const Node& node) {
    const Value target = lookup(node.names[0]);
    if (!target.is<Namespace>())
      runtime_.refuse(fmt::format("sets {}.{}, but {} is {}, expected a namespace", node.names[0], node.names[1],
                                  node.names[0], kind_of(target)));
    Value value = evaluate(node.children[0]);
    check_member(runtime_, value);
    set_field(target.as<Namespace>()->fields, node.names[1], std::move(value));
  }

  Value lookup(std::string_view name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
      if (const Value* value = find_field(*scope, name)) return *value;
    for (const std::string_view function : function_names())
      if (function == name) return {Builtin{function}};
    return {};
  }

  // ---- Expressions
  Value evaluate(const Node& node) {
    const At at(*this, node);
    const auto operand = [&](size_t i) { return evaluate(node.children[i]); };
    switch (node.kind) {
      case Kind::literal:
        return node.value;
      case Kind::name:
        return lookup(node.text);
      case Kind::list: {
        Items items;
        for (const Node& child : node.children) items.push_back(evaluate(child));
        return make_list(runtime_, std::move(items));
      }
      case Kind::dict:
        return dictionary(node);
      case Kind::attribute:
        return attribute(node);
      case Kind::item:
        return item(operand(0), operand(1), node);
      case Kind::slice:
        return slice(node);
      case Kind::call:
        return call(node);
      case Kind::filter:
        return filter(node);
      case Kind::test: {
        const Value value = operand(0);
        return {apply_test(runtime_, node.text, value, arguments(node))};
      }
      case Kind::negative:
        return arithmetic(runtime_, "-", {i64{0}}, operand(0));
      case Kind::positive:
        return arithmetic(runtime_, "+", {i64{0}}, operand(0));
      case Kind::logic_not:
        return {!is_true(operand(0))};
      case Kind::logic_and: {
        Value value = operand(0);
        return is_true(value) ? operand(1) : value;
      }
      case Kind::logic_or: {
        Value value = operand(0);
        return is_true(value) ? value : operand(1);
      }
      case Kind::arithmetic: {
        const Value left = operand(0);
        return arithmetic(runtime_, node.text, left, operand(1));
      }
      case Kind::compare:
        return comparison(node);
      case Kind::choose:
        return is_true(operand(1)) ? operand(0) : operand(2);
      default:
        check(false, "a statement as an expression");
        return {};
    }
  }

  Value dictionary(const Node& node) {
    Fields fields;
    for (size_t i = 0; i < node.children.size(); i += 2) {
      const Value key = evaluate(node.children[i]);
      if (!key.is<Text>()) runtime_.refuse(fmt::format("{} as the key of a dictionary, expected a text", kind_of(key)));
      runtime_.charge(fields.size());
      set_field(fields, key.text(), evaluate(node.children[i + 1]));
    }
    return make_dict(runtime_, std::move(fields));
  }

  Value comparison(const Node& node) {
    Value left = evaluate(node.children[0]);
    for (size_t i = 1; i < node.children.size(); ++i) {
      const Node& link = node.children[i];
      Value right = evaluate(link.children[0]);
      if (!compare(runtime_, link.text, left, right)) return {false};
      left = std::move(right);
    }
    return {true};
  }

  static std::string name_of(const Node& node) {
    if (node.kind == Kind::name) return node.text;
    if (node.kind == Kind::attribute) return name_of(node.children[0]) + "." + node.text;
    return "a value";
  }

  Value attribute(const Node& node) {
    const Value base = evaluate(node.children[0]);
    if (has_method(base, node.text))
      runtime_.refuse(fmt::format("the method {}.{} is not called", name_of(node.children[0]), node.text));
    if (base.is<Namespace>()) {
      const Value* field = find_field(base.as<Namespace>()->fields, node.text);
      return field ? *field : Value{};
    }
    return field_of(base, node.text, node);
  }

  Value field_of(const Value& base, std::string_view name, const Node& node) {
    if (base.is<Undefined>())
      runtime_.refuse(
          fmt::format("{} is undefined, so that it has no '{}'", name_of(node.children[0]), printable(name)));
    if (!base.is<Dict>()) return {};
    const Value* field = base.as<Dict>()->find(name);
    runtime_.charge(base.as<Dict>()->fields.size());
    return field ? *field : Value{};
  }

  Value item(const Value& base, const Value& key, const Node& node) {
    if (key.is<Text>()) return field_of(base, key.text(), node);
    if (base.is<Undefined>())
      runtime_.refuse(fmt::format("{} is undefined, so that it has no items", name_of(node.children[0])));
    if (!key.is<i64>() || (!base.is<List>() && !base.is<Text>())) return {};
    const Items characters = base.is<Text>() ? items_of(runtime_, base) : Items{};
    const Items& items = base.is<Text>() ? characters : base.as<List>()->items;
    const auto count = static_cast<i64>(items.size());
    const i64 index = key.as<i64>() < 0 ? key.as<i64>() + count : key.as<i64>();
    return index >= 0 && index < count ? items[static_cast<size_t>(index)] : Value{};
  }

  // Python's slices: of a list, or of the characters of a text.
  Value slice(const Node& node) {
    const Value base = evaluate(node.children[0]);
    if (!base.is<List>() && !base.is<Text>()) runtime_.refuse(fmt::format("a slice of {}", kind_of(base)));
    const Items items = items_of(runtime_, base);
    const auto count = static_cast<i64>(items.size());
    const auto number = [&](size_t child) -> std::optional<i64> {
      const Value value = evaluate(node.children[child]);
      if (value.is<None>()) return std::nullopt;
      if (!value.is<i64>()) runtime_.refuse(fmt::format("{} as the bound of a slice", kind_of(value)));
      return value.as<i64>();
    };
    const i64 step = std::clamp(number(3).value_or(1), -count - 1, count + 1);  // a longer one goes as far
    if (step == 0) runtime_.refuse("a slice with step 0");
    const i64 least = step > 0 ? 0 : -1, most = step > 0 ? count : count - 1;
    const auto bound = [&](size_t child, i64 otherwise) {
      const auto at = number(child);
      return at ? std::clamp(*at < 0 ? *at + count : *at, least, most) : otherwise;
    };
    const i64 begin = bound(1, step > 0 ? 0 : count - 1), end = bound(2, step > 0 ? count : -1);
    Items picked;
    for (i64 i = begin; step > 0 ? i < end : i > end; i += step) picked.push_back(items[static_cast<size_t>(i)]);
    Value list = make_list(runtime_, std::move(picked));
    if (base.is<List>()) return list;
    return apply_filter(runtime_, "join", list, {});
  }
  Arguments arguments(const Node& node) {
    Arguments list;
    for (size_t i = 1; i < node.children.size(); ++i) {
      const Node& child = node.children[i];
      if (child.kind == Kind::keyword)
        list.named.emplace_back(child.text, evaluate(child.children[0]));
      else
        list.positional.push_back(evaluate(child));
    }
    runtime_.line = node.line;
    return list;
  }

  Value filter(const Node& node) {
    const Value value = evaluate(node.children[0]);
    return apply_filter(runtime_, node.text, value, arguments(node));
  }

  Value call(const Node& node) {
    const Node& callee = node.children[0];
    if (callee.kind == Kind::attribute) {
      const Value base = evaluate(callee.children[0]);
      if (base.is<Undefined>())
        runtime_.refuse(
            fmt::format("{} is undefined, so that it has no {}()", name_of(callee.children[0]), callee.text));
      return apply_method(runtime_, callee.text, base, arguments(node));
    }
    const Value function = evaluate(callee);
    if (function.is<Macro>()) return call_macro(*function.as<Macro>().node, arguments(node));
    if (function.is<Builtin>()) return apply_function(runtime_, function.as<Builtin>().name, arguments(node));
    runtime_.refuse(fmt::format("{} is called, but is {}; known functions: {}", name_of(callee), kind_of(function),
                                fmt::join(function_names(), ", ")));
  }

  // A macro sees its parameters and the variables of the template's outermost level.
  Value call_macro(const Node& macro, Arguments given) {
    Fields parameters;
    const size_t count = macro.names.size(), defaults = macro.children.size() - 1;
    if (given.positional.size() > count)
      runtime_.refuse(
          fmt::format("the macro {} takes {} arguments, found {}", macro.text, count, given.positional.size()));
    for (size_t i = 0; i < count; ++i) {
      Value value;
      if (i < given.positional.size())
        value = std::move(given.positional[i]);
      else if (const Value* named = find_field(given.named, macro.names[i]))
        value = *named;
      else if (i + defaults >= count)
        value = evaluate(macro.children[i + defaults - count]);
      set_field(parameters, macro.names[i], std::move(value));
    }
    for (const auto& [name, value] : given.named)
      if (std::find(macro.names.begin(), macro.names.end(), name) == macro.names.end())
        runtime_.refuse(fmt::format("the macro {} has no parameter '{}'", macro.text, printable(name)));
    std::vector<Fields> outer(std::make_move_iterator(scopes_.begin() + 1), std::make_move_iterator(scopes_.end()));
    scopes_.resize(1);
    scopes_.push_back(std::move(parameters));
    std::string text = captured(macro.children.back());
    scopes_.resize(1);
    std::move(outer.begin(), outer.end(), std::back_inserter(scopes_));
    return make_text(runtime_, std::move(text));
  }

  Runtime& runtime_;
  std::vector<Fields> scopes_;  // the outermost first; a loop opens one for each round, a macro for each call
  std::string out_;
  int depth_ = 0;
};

}  // namespace

std::string render(const Node& tree, Fields variables, Runtime& runtime) {
  return Renderer(std::move(variables), runtime).run(tree);
}

}  // namespace sparsam::jinja
