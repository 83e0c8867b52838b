// The parts of tokenizer.json around the model. Strict: what would change the ids and is not understood is refused by
// its name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/splitter.h"

namespace sparsam {

constexpr i64 largest_vocabulary = 1 << 24;

[[noreturn]] void refuse(std::string_view where, std::string_view what);
[[noreturn]] void refuse_type(const Fields& fields, std::string_view type);

void read_normalizer(Fields fields, Normalizer& normalizer);  // appends
// Appends; true if a ByteLevel was among it, after which a model works on bytes.
bool read_pre_tokenizer(Fields fields, Splitter& splitter);
void read_decoder(Fields fields, Decoder& decoder);
// The tokens that it puts around a text.
void read_post_processor(Fields fields, std::vector<i32>& prefix, std::vector<i32>& suffix);

std::string from_base64(std::string_view text, std::string_view where);  // padding may be missing

}  // namespace sparsam
