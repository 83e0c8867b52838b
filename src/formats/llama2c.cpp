#include "formats/llama2c.h"

#include <algorithm>

#include "base/error.h"
#include "formats/byte_reader.h"

namespace sparsam {

namespace {

constexpr i32 magic = 0x616b3432;  // "ak42", of the later versions

Llama2cHeader read_header(ByteReader& reader) {
  Llama2cHeader header;
  const std::pair<const char*, i64*> fields[] = {
      {"dim", &header.dim},           {"hidden", &header.hidden}, {"layers", &header.layers},  {"heads", &header.heads},
      {"kv_heads", &header.kv_heads}, {"vocab", &header.vocab},   {"context", &header.context}};
  for (const auto& [name, field] : fields) {
    *field = reader.number<i32>(name);
    if (field == &header.dim && header.dim == magic)
      fail("{}: version 1 or later of llama2.c's checkpoints, expected version 0", reader.place());
    if (field == &header.vocab) {
      header.tied = header.vocab > 0;
      header.vocab = std::abs(header.vocab);
    }
    if (*field < 1) fail("{}: {} is {}, expected at least 1", reader.place(), name, *field);
  }
  if (header.dim % header.heads != 0 || header.dim / header.heads % 2 != 0)
    fail("{}: {} channels in {} heads, expected heads of an even number of channels", reader.place(), header.dim,
         header.heads);
  if (header.heads % header.kv_heads != 0)
    fail("{}: {} heads share {} key-value heads, expected a multiple", reader.place(), header.heads, header.kv_heads);
  return header;
}

}  // namespace

Llama2cFile Llama2cFile::open(const fs::path& path) {
  Llama2cFile file(path);
  ByteReader reader(file.file_.bytes(), path.string());
  const Llama2cHeader h = file.header_ = read_header(reader);
  const i64 head_dim = h.dim / h.heads, keys = h.kv_heads * head_dim;
  const auto add = [&](const char* name, std::vector<i64> shape) {
    TensorEntry entry{.name = name, .dtype = DType::f32, .shape = std::move(shape), .bytes = {}};
    i64 bytes = size_of(DType::f32);
    for (const i64 n : entry.shape)
      if (__builtin_mul_overflow(bytes, n, &bytes))
        fail("{}: {} of shape {} is larger than 63 bits can count", reader.place(), name, entry.shape_text());
    entry.bytes = reader.take(static_cast<u64>(bytes), fmt::format("{} of shape {}", name, entry.shape_text()));
    file.tensors_.push_back(std::move(entry));
  };
  add("token_embedding_table", {h.vocab, h.dim});
  add("rms_att_weight", {h.layers, h.dim});
  add("wq", {h.layers, h.dim, h.dim});
  add("wk", {h.layers, keys, h.dim});
  add("wv", {h.layers, keys, h.dim});
  add("wo", {h.layers, h.dim, h.dim});
  add("rms_ffn_weight", {h.layers, h.dim});
  add("w1", {h.layers, h.hidden, h.dim});
  add("w2", {h.layers, h.dim, h.hidden});
  add("w3", {h.layers, h.hidden, h.dim});
  add("rms_final_weight", {h.dim});
  add("freq_cis_real", {h.context, head_dim / 2});
  add("freq_cis_imag", {h.context, head_dim / 2});
  if (!h.tied) add("wcls", {h.vocab, h.dim});
  if (reader.remaining() != 0)
    fail("{}: {} bytes follow the tensors that its header describes", reader.place(), reader.remaining());
  return file;
}

const TensorEntry& Llama2cFile::at(std::string_view name) const {
  const auto found =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const TensorEntry& entry) { return entry.name == name; });
  check(found != tensors_.end(), "no tensor {} in a llama2.c checkpoint", name);
  return *found;
}

}  // namespace sparsam
