// Texts with labels, for classification.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sparsam {

struct LabelledText {
  std::string label, text;
};

// Lines LABEL<TAB>TEXT, the text being what follows the first tab; where `name` ends in ".jsonl", objects with the
// fields "label" (a string or an integer) and "text", whose other fields are not read. Empty lines are skipped. Errors
// name the line: no tab, no label, one that is not
// UTF-8, no text.
std::vector<LabelledText> read_labelled_texts(std::string_view content, const std::string& name);

}  // namespace sparsam
