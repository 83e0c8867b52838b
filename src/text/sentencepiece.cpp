#include "text/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "text/charsmap.h"

namespace sparsam {
namespace {

// A protocol buffer message, field by field. Groups, which no message here has, and fields numbered 0 are refused.
class Message {
 public:
  Message(std::string_view bytes, std::string_view where) : rest_(bytes), where_(where) {}

  struct Field {
    u64 number = 0;
    u64 value = 0;          // of an integer
    float real = 0;         // of a 4-byte field
    std::string_view text;  // of bytes, strings and messages
  };
  bool next(Field& field) {
    if (rest_.empty()) return false;
    const u64 key = varint();
    field = {.number = key >> 3, .text = {}};
    if (field.number == 0 || field.number >= 1u << 29) fail("{}: field number {} is not valid", where_, field.number);
    switch (key & 7) {
      case 0:
        field.value = varint();
        return true;
      case 1:
        take(8);
        return true;
      case 2:
        field.text = take(varint());
        return true;
      case 5:
        std::memcpy(&field.real, take(4).data(), sizeof field.real);
        return true;
      default:
        fail("{}: field {} has wire type {}, expected 0, 1, 2 or 5", where_, field.number, key & 7);
    }
  }

 private:
  u64 varint() {
    u64 value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const u64 byte = static_cast<u8>(take(1)[0]);
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
    fail("{}: an integer of more than 10 bytes", where_);
  }
  std::string_view take(u64 count) {
    if (count > rest_.size()) fail("{}: a field of {} bytes, but {} are left", where_, count, rest_.size());
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  std::string_view rest_, where_;
};

// The numbers are those of sentencepiece_model.proto.
void read_piece(std::string_view bytes, std::string_view where, Vocabulary& vocabulary) {
  Message message(bytes, where);
  std::string_view text;
  float score = 0;
  u64 type = 1;
  for (Message::Field field; message.next(field);) {
    if (field.number == 1) text = field.text;
    if (field.number == 2) score = field.real;
    if (field.number == 3) type = field.value;
  }
  const size_t id = vocabulary.tokens.size();
  if (text.empty() || text.find('\0') != std::string_view::npos)
    fail("{}: piece {} is empty or holds a zero byte", where, id);
  if (!std::isfinite(score)) fail("{}: piece {} has the score {}", where, id, score);
  if (type < 1 || type > 6) fail("{}: piece {} has type {}, expected 1 to 6", where, id, type);
  vocabulary.tokens.emplace_back(text);
  vocabulary.scores.push_back(score);
  vocabulary.types.push_back(static_cast<TokenType>(type));
}

void read_trainer(std::string_view bytes, std::string_view where, Vocabulary& vocabulary) {
  Message message(bytes, where);
  for (Message::Field field; message.next(field);) {
    if (field.number == 3)
      vocabulary.model = field.value == 2 ? "llama" : field.value == 3 ? "word" : field.value == 4 ? "char" : "t5";
    if (field.number == 24 && field.value != 0) vocabulary.model = "whitespace as suffix";
    const auto id = [&](u64 number, std::optional<i32>& place) {
      if (field.number == number && static_cast<i64>(field.value) >= 0 && field.value < INT32_MAX)
        place = static_cast<i32>(field.value);
    };
    id(40, vocabulary.unk), id(41, vocabulary.bos), id(42, vocabulary.eos), id(43, vocabulary.pad);
    const auto none = [&](u64 number, std::optional<i32>& place) {
      if (field.number == number && static_cast<i64>(field.value) < 0) place.reset();
    };
    none(41, vocabulary.bos), none(42, vocabulary.eos), none(43, vocabulary.pad);
  }
}

void read_normalizer(std::string_view bytes, std::string_view where, Vocabulary& vocabulary) {
  Message message(bytes, where);
  for (Message::Field field; message.next(field);) {
    if (field.number == 2 && !field.text.empty()) vocabulary.charsmap = Charsmap(field.text, where).bytes();
    if (field.number == 3) vocabulary.add_space_prefix = field.value != 0;
    if (field.number == 4) vocabulary.remove_extra_whitespaces = field.value != 0;
    if (field.number == 5 && field.value == 0) fail("{}: models that do not escape spaces are not supported", where);
  }
}

Vocabulary read_model(std::string_view bytes, std::string_view where) {
  if (bytes.empty()) fail("{}: empty, expected a sentencepiece model", where);
  Vocabulary vocabulary{};
  vocabulary.model = "t5", vocabulary.pre = "default";
  vocabulary.unk = 0, vocabulary.bos = 1, vocabulary.eos = 2;
  vocabulary.add_space_prefix = vocabulary.remove_extra_whitespaces = true;
  Message message(bytes, where);
  for (Message::Field field; message.next(field);) {
    if (field.number == 1) read_piece(field.text, where, vocabulary);
    if (field.number == 2) read_trainer(field.text, where, vocabulary);
    if (field.number == 3) read_normalizer(field.text, where, vocabulary);
    if (field.number == 5) {
      Vocabulary unused;
      read_normalizer(field.text, where, unused);  // the denormalizer: the library loads its table too
    }
  }
  if (vocabulary.tokens.empty()) fail("{}: a sentencepiece model without pieces", where);
  // The trainer's ids are wishes; what counts are the types and texts of the pieces.
  const auto keep = [&](std::optional<i32>& id, TokenType type) {
    if (id && (*id >= static_cast<i64>(vocabulary.tokens.size()) || vocabulary.types[*id] != type)) id.reset();
  };
  keep(vocabulary.unk, TokenType::unknown), keep(vocabulary.bos, TokenType::control);
  keep(vocabulary.eos, TokenType::control), keep(vocabulary.pad, TokenType::control);
  vocabulary.add_bos = vocabulary.bos.has_value();
  return vocabulary;
}

}  // namespace

SentencePiece::SentencePiece(std::string_view model, std::string_view where) : vocabulary_(read_model(model, where)) {
  auto processor = std::make_shared<sentencepiece::SentencePieceProcessor>();
  try {
    const auto status = processor->LoadFromSerializedProto({model.data(), model.size()});
    if (!status.ok()) fail("{}: sentencepiece cannot load it: {}", where, status.ToString());
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {  // of its trie, over pieces that it cannot hold
    fail("{}: sentencepiece cannot load it: {}", where, error.what());
  }
  if (processor->GetPieceSize() != static_cast<int>(vocabulary_.tokens.size()))
    fail("{}: sentencepiece sees {} pieces, the file has {}", where, processor->GetPieceSize(),
         vocabulary_.tokens.size());
  processor_ = std::move(processor);
}

void SentencePiece::encode(std::string_view text, std::vector<i32>& out) const {
  std::vector<int> ids;
  const auto status = processor_->Encode({text.data(), text.size()}, &ids);
  if (!status.ok()) fail("sentencepiece cannot encode this text: {}", status.ToString());
  out.insert(out.end(), ids.begin(), ids.end());
}

}  // namespace sparsam
