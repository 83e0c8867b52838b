#include "infer/text_stream.h"

#include <algorithm>

namespace sparsam {

namespace {

struct Sequence {
  size_t length = 1;  // bytes that belong together
  bool well_formed = true;
  bool unfinished = false;  // the text ends before the character does
};

// The character, or the maximal ill-formed subpart, that begins at `text`, which is not empty.
Sequence sequence_at(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<u8>(text[i]); };
  const u8 lead = byte(0);
  if (lead < 0x80) return {};
  if (lead < 0xc2 || lead > 0xf4) return {.well_formed = false};
  const size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, false, true};
    // The second byte's range is narrower where the form would be overlong, a surrogate, or above U+10FFFF.
    const u8 least = i > 1 ? 0x80 : lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const u8 most = i > 1 ? 0xbf : lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (byte(i) < least || byte(i) > most) return {i, false, false};
  }
  return {length, true, false};
}

// Length of the longest suffix of `text` that begins, but is not all of, `stop`.
size_t overlap(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length)
    if (text.substr(text.size() - length) == stop.substr(0, length)) return length;
  return 0;
}

}  // namespace

size_t whole_characters(std::string_view bytes) {
  // A character is at most four bytes: only the last three can begin an unfinished one.
  for (size_t back = 1; back <= std::min<size_t>(3, bytes.size()); ++back) {
    const size_t at = bytes.size() - back;
    if (static_cast<u8>(bytes[at]) >= 0xc0) {
      const Sequence last = sequence_at(bytes.substr(at));
      return last.unfinished && last.length == back ? at : bytes.size();
    }
  }
  return bytes.size();
}

std::string to_well_formed(std::string_view bytes) {
  std::string text;
  for (size_t i = 0; i < bytes.size();) {
    const Sequence sequence = sequence_at(bytes.substr(i));
    text.append(sequence.well_formed ? bytes.substr(i, sequence.length) : std::string_view("\xef\xbf\xbd"));
    i += sequence.length;
  }
  return text;
}

TextStream::TextStream(std::vector<std::string> stops) : stops_(std::move(stops)) { std::erase(stops_, ""); }

std::string TextStream::feed(std::string_view bytes) {
  if (stopped_) return {};
  held_.append(bytes);
  size_t stop_at = std::string::npos, keep = 0;
  for (const std::string& stop : stops_) {
    stop_at = std::min(stop_at, held_.find(stop));
    keep = std::max(keep, overlap(held_, stop));
  }
  if (stop_at != std::string::npos) {
    stopped_ = true;
    held_.resize(stop_at);
    return release(held_.size());
  }
  return release(whole_characters(std::string_view(held_).substr(0, held_.size() - keep)));
}

std::string TextStream::finish() { return release(held_.size()); }

std::string TextStream::release(size_t bytes) {
  std::string text = to_well_formed(std::string_view(held_).substr(0, bytes));
  held_.erase(0, bytes);
  return text;
}

}  // namespace sparsam
