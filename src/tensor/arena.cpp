#include "tensor/arena.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "base/threads.h"

namespace sparsam {

namespace {
constexpr i64 cache_line = 64;
constexpr i64 huge_page = i64{2} << 20;
constexpr i64 block_bytes = i64{32} << 20;

constexpr i64 round_up(i64 value, i64 multiple) { return (value + multiple - 1) / multiple * multiple; }
}  // namespace

Buffer::Buffer(i64 bytes) : size_(bytes) {
  if (bytes == 0) return;
  const i64 alignment = bytes >= huge_page ? huge_page : cache_line;
  const size_t length = static_cast<size_t>(round_up(bytes, alignment));
  void* memory = std::aligned_alloc(static_cast<size_t>(alignment), length);
  if (!memory) fail("memory: cannot allocate {} bytes", bytes);
  if (alignment == huge_page) ::madvise(memory, length, MADV_HUGEPAGE);
  data_.reset(static_cast<std::byte*>(memory));
}

void Buffer::Free::operator()(std::byte* data) const { std::free(data); }

std::byte* Arena::allocate_bytes(i64 bytes) {
  bytes = round_up(std::max<i64>(bytes, 1), cache_line);
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].size()) {
    below_ += blocks_[block_].size();
    ++block_, used_ = 0;
  }
  if (block_ == blocks_.size()) blocks_.emplace_back(std::max(bytes, block_bytes));
  std::byte* address = blocks_[block_].data() + used_;
  used_ += bytes;
  peak_ = std::max(peak_, below_ + used_);
  return address;
}

void Arena::release(Mark mark) {
  while (block_ > mark.block) below_ -= blocks_[--block_].size();
  used_ = mark.used;
}

void Arena::zero_bytes(std::span<std::byte> bytes) {
  parallel_ranges(static_cast<i64>(bytes.size()), i64{1} << 16, [&](int, i64 begin, i64 end) {
    std::memset(bytes.data() + begin, 0, static_cast<size_t>(end - begin));
  });
}

}  // namespace sparsam
