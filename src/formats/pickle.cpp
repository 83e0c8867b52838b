#include "formats/pickle.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "base/error.h"
#include "formats/byte_reader.h"
#include "formats/json.h"

namespace sparsam {

namespace {

using Kind = PickleNode::Kind;

struct Known {
  std::string_view module, name;
  PickleName what;
  DType dtype = DType::f32;
};
constexpr Known known_names[] = {
    {"collections", "OrderedDict", PickleName::ordered_dict},
    {"torch._utils", "_rebuild_tensor_v2", PickleName::rebuild_tensor},
    {"torch._utils", "_rebuild_parameter", PickleName::rebuild_parameter},
    {"torch", "Size", PickleName::size},
    {"torch", "FloatStorage", PickleName::storage, DType::f32},
    {"torch", "HalfStorage", PickleName::storage, DType::f16},
    {"torch", "BFloat16Storage", PickleName::storage, DType::bf16},
    {"torch", "DoubleStorage", PickleName::storage, DType::f64},
    {"torch", "ByteStorage", PickleName::storage, DType::u8},
    {"torch", "BoolStorage", PickleName::storage, DType::u8},
    {"torch", "IntStorage", PickleName::storage, DType::i32},
    {"torch", "LongStorage", PickleName::storage, DType::i64},
};

// Instructions that are refused, by their names in pickletools, for the message alone.
constexpr std::pair<char, const char*> refused_instructions[] = {{'i', "INST"},
                                                                 {'o', "OBJ"},
                                                                 {'\x81', "NEWOBJ"},
                                                                 {'\x92', "NEWOBJ_EX"},
                                                                 {'P', "PERSID"},
                                                                 {'\x82', "EXT1"},
                                                                 {'\x83', "EXT2"},
                                                                 {'\x84', "EXT4"},
                                                                 {'0', "POP"},
                                                                 {'1', "POP_MARK"},
                                                                 {'2', "DUP"},
                                                                 {'g', "GET"},
                                                                 {'p', "PUT"},
                                                                 {'I', "INT"},
                                                                 {'L', "LONG"},
                                                                 {'F', "FLOAT"},
                                                                 {'S', "STRING"},
                                                                 {'T', "BINSTRING"},
                                                                 {'U', "SHORT_BINSTRING"},
                                                                 {'V', "UNICODE"},
                                                                 {'B', "BINBYTES"},
                                                                 {'C', "SHORT_BINBYTES"},
                                                                 {'l', "LIST"},
                                                                 {'d', "DICT"},
                                                                 {'\x8b', "LONG4"},
                                                                 {'\x8d', "BINUNICODE8"},
                                                                 {'\x8e', "BINBYTES8"},
                                                                 {'\x8f', "EMPTY_SET"},
                                                                 {'\x90', "ADDITEMS"},
                                                                 {'\x91', "FROZENSET"},
                                                                 {'\x96', "BYTEARRAY8"},
                                                                 {'\x97', "NEXT_BUFFER"},
                                                                 {'\x98', "READONLY_BUFFER"}};

class Machine {
 public:
  Machine(std::span<const std::byte> bytes, std::string place) : reader_(bytes, std::move(place)) {}

  Pickle run() {
    while (!step()) {
    }
    if (!marks_.empty() || stack_.size() != 1)
      fail("{}: it ends with {} values on the stack, expected 1", reader_.place(), stack_.size());
    if (reader_.remaining() != 0) fail("{}: {} bytes follow its end", reader_.place(), reader_.remaining());
    pickle_.root = stack_.back();
    return std::move(pickle_);
  }

 private:
  // One instruction; true when it is the last.
  bool step() {
    begin_ = reader_.position();
    const char code = reader_.number<char>("an instruction");
    switch (code) {
      case '\x80':  // PROTO
        if (const u8 protocol = reader_.number<u8>("protocol"); protocol < 2 || protocol > 5)
          refuse(fmt::format("protocol {}, expected 2 to 5", protocol));
        break;
      case '\x95':  // FRAME
        if (const u64 bytes = reader_.number<u64>("frame"); bytes > reader_.remaining())
          refuse(fmt::format("a frame of {} bytes, but {} are left", bytes, reader_.remaining()));
        break;
      case '.':  // STOP
        return true;
      case '(':  // MARK
        marks_.push_back(stack_.size());
        break;
      case 'q':  // BINPUT
        put(reader_.number<u8>("memo index"));
        break;
      case 'r':  // LONG_BINPUT
        put(reader_.number<u32>("memo index"));
        break;
      case '\x94':  // MEMOIZE
        put(memo_.size());
        break;
      case 'h':  // BINGET
        get(reader_.number<u8>("memo index"));
        break;
      case 'j':  // LONG_BINGET
        get(reader_.number<u32>("memo index"));
        break;
      case 'c': {  // GLOBAL
        const std::string_view module = reader_.text_until('\n', "a module");
        push_name(module, reader_.text_until('\n', "a name"));
        break;
      }
      case '\x93': {  // STACK_GLOBAL
        const std::string_view name = node(pop(Kind::text)).text;
        push_name(node(pop(Kind::text)).text, name);
        break;
      }
      case 'Q':  // BINPERSID
        push_storage(pop(Kind::tuple));
        break;
      case 'R': {  // REDUCE
        const u32 arguments = pop(Kind::tuple);
        call(pop(Kind::name), arguments);
        break;
      }
      case 'b':  // BUILD: attributes of a dictionary, such as _metadata, say nothing about tensors
        pop();
        if (top().kind != Kind::dict) refuse("BUILD of something else than a dictionary");
        break;
      default:
        if (!step_value(code)) refuse(describe(code));
    }
    return false;
  }

  // Instructions that make values and put them into containers; false for others.
  bool step_value(char code) {
    switch (code) {
      case 'N':  // NONE
        push({});
        break;
      case '\x88':  // NEWTRUE
      case '\x89':  // NEWFALSE
        push({.kind = Kind::boolean, .number = code == '\x88'});
        break;
      case 'J':  // BININT
        push_integer(reader_.number<i32>("an integer"));
        break;
      case 'K':  // BININT1
        push_integer(reader_.number<u8>("an integer"));
        break;
      case 'M':  // BININT2
        push_integer(reader_.number<u16>("an integer"));
        break;
      case '\x8a':  // LONG1
        push_integer(long_integer());
        break;
      case 'G':  // BINFLOAT: no tensor needs its value
        reader_.take(8, "a number");
        push({.kind = Kind::real});
        break;
      case 'X':  // BINUNICODE
        push({.kind = Kind::text, .text = reader_.text(reader_.number<u32>("length of a text"), "a text")});
        break;
      case '\x8c':  // SHORT_BINUNICODE
        push({.kind = Kind::text, .text = reader_.text(reader_.number<u8>("length of a text"), "a text")});
        break;
      case ')':  // EMPTY_TUPLE
        push({.kind = Kind::tuple});
        break;
      case '\x85':  // TUPLE1
      case '\x86':  // TUPLE2
      case '\x87':  // TUPLE3
        push({.kind = Kind::tuple, .items = pop_items(static_cast<size_t>(code - '\x85') + 1)});
        break;
      case 't':  // TUPLE
        push({.kind = Kind::tuple, .items = pop_marked()});
        break;
      case ']':  // EMPTY_LIST
        push({.kind = Kind::list});
        break;
      case '}':  // EMPTY_DICT
        push({.kind = Kind::dict});
        break;
      case 'a':  // APPEND
        append(pop_items(1), Kind::list);
        break;
      case 'e':  // APPENDS
        append(pop_marked(), Kind::list);
        break;
      case 's':  // SETITEM
        append(pop_items(2), Kind::dict);
        break;
      case 'u':  // SETITEMS
        append(pop_marked(), Kind::dict);
        break;
      default:
        return false;
    }
    return true;
  }

  [[noreturn]] void refuse(const std::string& text) const { fail("{}: byte {}: {}", reader_.place(), begin_, text); }

  static std::string describe(char code) {
    for (const auto& [known, name] : refused_instructions)
      if (known == code) return fmt::format("the instruction {}, which no dictionary of tensors needs", name);
    return fmt::format("the instruction {:#04x}, which pickles do not have", static_cast<u8>(code));
  }

  const PickleNode& node(u32 index) const { return pickle_.nodes[index]; }

  void push(PickleNode value) {
    pickle_.nodes.push_back(std::move(value));
    stack_.push_back(static_cast<u32>(pickle_.nodes.size() - 1));
  }
  void push_integer(i64 value) { push({.kind = Kind::integer, .number = value}); }

  // The values above the last mark are all that an instruction may touch.
  size_t available() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }
  u32 pop() { return pop_items(1)[0]; }
  u32 pop(Kind kind) {
    const u32 index = pop();
    if (node(index).kind != kind)
      refuse(fmt::format("found {}, expected {}", name_of(node(index).kind), name_of(kind)));
    return index;
  }
  std::vector<u32> pop_items(size_t count) {
    if (count > available()) refuse(fmt::format("takes {} values from a stack of {}", count, available()));
    std::vector<u32> items(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return items;
  }
  std::vector<u32> pop_marked() {
    if (marks_.empty()) refuse("no mark on the stack");
    std::vector<u32> items = pop_items(available());
    marks_.pop_back();
    return items;
  }
  PickleNode& top() {
    if (available() == 0) refuse("the stack is empty");
    return pickle_.nodes[stack_.back()];
  }
  void append(const std::vector<u32>& items, Kind kind) {
    PickleNode& container = top();
    if (container.kind != kind) refuse(fmt::format("adds to {}, expected {}", name_of(container.kind), name_of(kind)));
    if (kind == Kind::dict && items.size() % 2 != 0) refuse("a key without a value");
    container.items.insert(container.items.end(), items.begin(), items.end());
  }

  void put(u64 index) {
    top();
    // Writers number their memo from 0, so that a list holds it.
    if (index > memo_.size()) refuse(fmt::format("memo index {}, expected at most {}", index, memo_.size()));
    if (index == memo_.size()) memo_.emplace_back();
    memo_[index] = stack_.back();
  }
  void get(u64 index) {
    if (index >= memo_.size()) refuse(fmt::format("memo index {}, but {} are set", index, memo_.size()));
    stack_.push_back(memo_[index]);
  }

  i64 long_integer() {
    const auto bytes = reader_.take(reader_.number<u8>("length of an integer"), "an integer");
    if (bytes.size() > sizeof(i64)) refuse(fmt::format("an integer of {} bytes, expected at most 8", bytes.size()));
    u64 value = 0;
    for (size_t i = 0; i < bytes.size(); ++i) value |= static_cast<u64>(bytes[i]) << (8 * i);
    if (!bytes.empty() && bytes.size() < 8 && static_cast<u8>(bytes.back()) >= 0x80)
      value |= ~u64{0} << (8 * bytes.size());
    return static_cast<i64>(value);
  }

  void push_name(std::string_view module, std::string_view name) {
    for (const Known& known : known_names)
      if (known.module == module && known.name == name)
        return push({.kind = Kind::name, .name = known.what, .dtype = known.dtype});
    std::string accepted;
    for (const Known& known : known_names)
      accepted.append(accepted.empty() ? "" : ", ").append(known.module).append(".").append(known.name);
    refuse(fmt::format("names {}.{}, expected one of {}", printable(module), printable(name), accepted));
  }

  // ('storage', class, key, device, number of elements)
  void push_storage(u32 id) {
    const std::vector<u32>& items = node(id).items;
    if (items.size() != 5 || node(items[0]).text != "storage" || node(items[1]).kind != Kind::name ||
        node(items[1]).name != PickleName::storage || node(items[2]).kind != Kind::text ||
        node(items[4]).kind != Kind::integer)
      refuse("a persistent id that is no ('storage', class, key, device, elements)");
    push({.kind = Kind::storage,
          .dtype = node(items[1]).dtype,
          .number = node(items[4]).number,
          .text = node(items[2]).text});
  }

  bool is_shape(u32 index) const {
    const PickleNode& shape = node(index);
    if (shape.kind != Kind::tuple) return false;
    for (const u32 item : shape.items)
      if (node(item).kind != Kind::integer) return false;
    return true;
  }

  void call(u32 function, u32 arguments) {
    const std::vector<u32> items = node(arguments).items;
    switch (node(function).name) {
      case PickleName::ordered_dict:
        if (!items.empty()) refuse("OrderedDict is called with arguments");
        return push({.kind = Kind::dict});
      case PickleName::rebuild_tensor:  // storage, first element, shape, strides, needs gradient, hooks [, metadata]
        if (items.size() < 6 || items.size() > 7 || node(items[0]).kind != Kind::storage ||
            node(items[1]).kind != Kind::integer || !is_shape(items[2]) || !is_shape(items[3]))
          refuse("_rebuild_tensor_v2 is called with other arguments than a tensor has");
        return push({.kind = Kind::tensor, .number = node(items[1]).number, .items = {items[0], items[2], items[3]}});
      case PickleName::rebuild_parameter:  // tensor, needs gradient, hooks
        if (items.size() != 3 || node(items[0]).kind != Kind::tensor)
          refuse("_rebuild_parameter is called with something else than a tensor");
        return stack_.push_back(items[0]);
      case PickleName::size:
        if (items.size() != 1 || !is_shape(items[0])) refuse("torch.Size is called with something else than a shape");
        return stack_.push_back(items[0]);
      case PickleName::storage:
        refuse("a storage is called");
    }
  }

  ByteReader reader_;
  Pickle pickle_;
  std::vector<u32> stack_, memo_;
  std::vector<size_t> marks_;  // the heights of the stack at each mark
  size_t begin_ = 0;           // of the instruction
};

}  // namespace

std::string_view name_of(PickleNode::Kind kind) {
  constexpr std::string_view names[] = {"None",   "a truth value", "an integer", "a number",  "a text",  "a tuple",
                                        "a list", "a dictionary",  "a name",     "a storage", "a tensor"};
  return names[static_cast<size_t>(kind)];
}

Pickle read_pickle(std::span<const std::byte> bytes, const std::string& place) { return Machine(bytes, place).run(); }

}  // namespace sparsam
