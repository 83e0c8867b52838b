// Files that are mapped, and files that are written whole or not at all.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/types.h"

namespace sparsam {

namespace fs = std::filesystem;

// A file mapped read-only. Errors: missing, a directory, unreadable (Error naming the path and the reason).
class MappedFile {
 public:
  explicit MappedFile(const fs::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

std::string read_text(const fs::path& path);  // the whole file; "-" reads standard input

// Writes to `path` + a temporary suffix; commit() flushes, syncs and renames, so that `path` holds either the old
// content or all of the new. Without commit() the temporary is removed. Every failure (full disk) is an Error naming
// the path.
class AtomicFile {
 public:
  explicit AtomicFile(fs::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  i64 written() const { return written_; }
  void commit();

 private:
  fs::path path_, temporary_;
  int descriptor_ = -1;
  i64 written_ = 0;
};

void write_text(const fs::path& path, std::string_view text);  // atomically

// The same for a directory: fill path(), then commit() syncs it and renames it to its final name. An existing directory
// of that name is replaced.
class AtomicDirectory {
 public:
  explicit AtomicDirectory(fs::path final_path);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  const fs::path& path() const { return temporary_; }
  void commit();

 private:
  fs::path final_, temporary_;
  bool committed_ = false;
};

// Keeps a directory to one writer: a second lock on it, by any process, is an Error that names it. The lock lies on the
// directory itself, leaves no file, and ends with this or with the process.
class DirectoryLock {
 public:
  explicit DirectoryLock(const fs::path& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace sparsam
