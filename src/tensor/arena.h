// Arena: the only owner of activations. Allocation moves a pointer; release() goes back to a mark. Memory is kept for
// the next use, 64-byte aligned, and not cleared.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "tensor/view.h"

namespace sparsam {

// Aligned, uninitialised bytes (2 MiB alignment when large, so that the kernel can use huge pages).
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(i64 bytes);
  std::byte* data() const { return data_.get(); }
  i64 size() const { return size_; }
  template <class T>
  std::span<T> as() const {
    return {reinterpret_cast<T*>(data_.get()), static_cast<size_t>(size_) / sizeof(T)};
  }
  std::span<std::byte> bytes() const { return {data_.get(), static_cast<size_t>(size_)}; }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte[], Free> data_;
  i64 size_ = 0;
};

class Arena {
 public:
  struct Mark {
    size_t block = 0;
    i64 used = 0;
  };

  template <class T, class... Sizes>
  View<T, static_cast<int>(sizeof...(Sizes))> allocate(Sizes... sizes) {
    const Shape<static_cast<int>(sizeof...(Sizes))> shape{static_cast<i64>(sizes)...};
    return {reinterpret_cast<T*>(allocate_bytes(count(shape) * static_cast<i64>(sizeof(T)))), shape};
  }
  // The same, filled with zeros: for gradients that are summed into.
  template <class T, class... Sizes>
  View<T, static_cast<int>(sizeof...(Sizes))> zeros(Sizes... sizes) {
    auto view = allocate<T>(sizes...);
    fill_zero(view.span());
    return view;
  }
  Mark mark() const { return {block_, used_}; }
  void release(Mark mark);  // everything allocated since `mark` is gone
  void reset() { release({}); }
  i64 peak_bytes() const { return peak_; }

 private:
  std::byte* allocate_bytes(i64 bytes);
  template <class T>
  static void fill_zero(std::span<T> values) {
    zero_bytes(std::as_writable_bytes(values));
  }
  static void zero_bytes(std::span<std::byte> bytes);  // on all threads
  std::vector<Buffer> blocks_;
  size_t block_ = 0;  // the block in use
  i64 used_ = 0;      // bytes used of it
  i64 below_ = 0;     // bytes in the blocks before it
  i64 peak_ = 0;
};

}  // namespace sparsam
