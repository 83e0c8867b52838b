// What normalizers ask of Unicode (version 15, from utf8proc; character classes from PCRE2, see regex.h).
#pragma once

#include <string>
#include <string_view>

#include "base/types.h"

namespace sparsam {

// The normal forms of Unicode Standard Annex 15. Ill-formed bytes stay as they are and end what stands before them.
enum class NormalForm { nfc, nfd, nfkc, nfkd };
std::string to_normal_form(std::string_view text, NormalForm form);

void append_lowercase(std::string& out, u32 code_point);  // the full mapping, of the character by itself
bool is_nonspacing_mark(u32 code_point);                  // Mn
bool is_punctuation(u32 code_point);                      // P*
bool is_control(u32 code_point);                          // Cc, Cf, Co: what BERT takes out of a text
size_t grapheme_end(std::string_view text, size_t i);     // of the extended grapheme cluster that begins at text[i]

}  // namespace sparsam
