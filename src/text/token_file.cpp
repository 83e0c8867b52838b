#include "text/token_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/random.h"

namespace sparsam {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are read in place");

struct Header {
  char magic[8];
  u32 version, token_bytes;
  u64 vocab, count, hash;
};
static_assert(sizeof(Header) == 40);
constexpr std::string_view magic = "SPARSTOK";
constexpr u64 largest_vocab = u64{1} << 31;

template <class T>
void copy_tokens(const std::byte* from, i64 count, i32* out) {
  for (i64 i = 0; i < count; ++i) {
    T id;
    std::memcpy(&id, from + i * static_cast<i64>(sizeof(T)), sizeof(T));
    out[i] = static_cast<i32>(id);
  }
}

}  // namespace

TokenFile TokenFile::open(const fs::path& path) {
  TokenFile tokens(path);
  const std::span<const std::byte> bytes = tokens.file_.bytes();
  Header header{};
  if (bytes.size() < sizeof header || std::memcmp(bytes.data(), magic.data(), magic.size()) != 0)
    fail("{}: not a token file (it does not begin with {})", path.string(), magic);
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.version != 1) fail("{}: token file of version {}, expected 1", path.string(), header.version);
  const u64 token_bytes = header.vocab <= 65536 ? 2 : 4;
  if (header.vocab == 0 || header.vocab > largest_vocab || header.token_bytes != token_bytes)
    fail("{}: header says vocab {} and {} bytes a token", path.string(), header.vocab, header.token_bytes);
  const u64 held = (bytes.size() - sizeof header) / token_bytes;
  if (header.count != held || (bytes.size() - sizeof header) % token_bytes != 0)
    fail("{}: header says {} tokens of {} bytes, the file has {} bytes after the header", path.string(), header.count,
         token_bytes, bytes.size() - sizeof header);
  tokens.count_ = static_cast<i64>(header.count), tokens.vocab_ = static_cast<i64>(header.vocab);
  tokens.token_bytes_ = static_cast<int>(token_bytes), tokens.hash_ = header.hash;
  return tokens;
}

i32 TokenFile::operator[](i64 index) const {
  i32 id = 0;
  copy(index, 1, &id);
  return id;
}

void TokenFile::copy(i64 begin, i64 count, i32* out) const {
  check(begin >= 0 && count >= 0 && begin <= count_ - count, "tokens [{}, {} + {}) of {}", begin, begin, count, count_);
  const std::byte* from = file_.bytes().data() + sizeof(Header) + begin * token_bytes_;
  token_bytes_ == 2 ? copy_tokens<u16>(from, count, out) : copy_tokens<u32>(from, count, out);
  for (i64 i = 0; i < count; ++i)
    if (out[i] < 0 || out[i] >= vocab_)
      fail("{}: token {} has id {}, expected 0 to {}", file_.path().string(), begin + i, static_cast<u32>(out[i]),
           vocab_ - 1);
}

void write_token_file(const fs::path& path, std::span<const i32> ids, i64 vocab, u64 hash) {
  check(vocab > 0 && static_cast<u64>(vocab) <= largest_vocab, "vocab {}", vocab);
  Header header{{}, 1, vocab <= 65536 ? 2u : 4u, static_cast<u64>(vocab), ids.size(), hash};
  std::copy(magic.begin(), magic.end(), header.magic);
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&header, 1)));
  std::vector<u16> narrow;
  constexpr size_t block = 1 << 16;
  for (size_t begin = 0; begin < ids.size(); begin += block) {
    const std::span<const i32> part = ids.subspan(begin, std::min(block, ids.size() - begin));
    for (i32 id : part) check(id >= 0 && id < vocab, "token {} of a vocabulary of {}", id, vocab);
    if (header.token_bytes == 4) {
      file.write(std::as_bytes(part));
    } else {
      narrow.assign(part.begin(), part.end());
      file.write(std::as_bytes(std::span(narrow)));
    }
  }
  file.commit();
}

u64 hash_text(std::string_view text, u64 seed) {
  u64 hash = mix64(seed ^ text.size());
  for (size_t i = 0; i < text.size(); i += 8) {
    u64 word = 0;
    std::memcpy(&word, text.data() + i, std::min<size_t>(8, text.size() - i));
    hash = mix64(hash ^ word);
  }
  return hash;
}

}  // namespace sparsam
