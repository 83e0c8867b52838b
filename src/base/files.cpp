#include "base/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <utility>

#include "base/error.h"

namespace sparsam {

namespace {
std::string reason() { return std::strerror(errno); }

fs::path temporary_name(const fs::path& path) {
  fs::path name = path;
  if (!name.has_filename()) name = name.parent_path();  // "out/" means "out"
  return name.parent_path() / fmt::format(".{}.{}.partial", name.filename().string(), ::getpid());
}

// A rename is durable once the directory that holds the name is synced.
void sync_directory(const fs::path& directory) {
  const int descriptor = ::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}
}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block
  if (descriptor < 0) fail("{}: cannot open: {}", path.string(), reason());
  struct stat info {};
  if (::fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(descriptor);
    fail("{}: expected a regular file", path.string());
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    const std::string why = reason();
    ::close(descriptor);
    if (address == MAP_FAILED) fail("{}: cannot map {} bytes: {}", path.string(), size_, why);
    data_ = static_cast<const std::byte*>(address);
  } else {
    ::close(descriptor);
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, size_t{0})) {}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::string read_text(const fs::path& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  return std::string(MappedFile(path).text());
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), temporary_(temporary_name(path_)) {
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail("{}: cannot create: {}", temporary_.string(), reason());
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor_, bytes.data(), std::min<size_t>(bytes.size(), size_t{1} << 30));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("{}: cannot write after {} bytes: {}; nothing was changed", path_.string(), written_, reason());
    bytes = bytes.subspan(static_cast<size_t>(count));
    written_ += count;
  }
}

void AtomicFile::commit() {
  const bool synced = ::fsync(descriptor_) == 0;
  const std::string why = reason();
  const bool closed = ::close(std::exchange(descriptor_, -1)) == 0;
  if (!synced || !closed) {
    ::unlink(temporary_.c_str());
    fail("{}: cannot flush: {}; nothing was changed", path_.string(), synced ? reason() : why);
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const std::string why_not = reason();
    ::unlink(temporary_.c_str());
    fail("{}: cannot rename into place: {}", path_.string(), why_not);
  }
  sync_directory(path_.parent_path());
}

void write_text(const fs::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

AtomicDirectory::AtomicDirectory(fs::path final_path)
    : final_(std::move(final_path)), temporary_(temporary_name(final_)) {
  if (!final_.has_filename()) final_ = final_.parent_path();
  std::error_code error;
  if (const fs::path parent = final_.parent_path(); !parent.empty()) fs::create_directories(parent, error);
  fs::remove_all(temporary_, error);
  fs::create_directory(temporary_, error);
  if (error) fail("{}: cannot create directory: {}", temporary_.string(), error.message());
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  sync_directory(temporary_);
  std::error_code error;
  // A directory cannot be renamed over a full one: move the old one aside first, and delete it last.
  const fs::path old = temporary_.string() + ".old";
  fs::remove_all(old, error);
  const bool replaces = fs::exists(final_);
  if (replaces) fs::rename(final_, old, error);
  if (!error) fs::rename(temporary_, final_, error);
  if (error) {
    std::error_code ignored;
    if (replaces && !fs::exists(final_)) fs::rename(old, final_, ignored);
    fail("{}: cannot rename into place: {}", final_.string(), error.message());
  }
  committed_ = true;
  sync_directory(final_.parent_path());
  fs::remove_all(old, error);
}

DirectoryLock::DirectoryLock(const fs::path& directory)
    : descriptor_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (descriptor_ < 0) fail("{}: cannot open: {}", directory.string(), reason());
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
  // A file system that cannot lock is no reason to refuse work.
  const bool taken = errno == EWOULDBLOCK;
  ::close(std::exchange(descriptor_, -1));
  if (taken) fail("{}: another run is writing there", directory.string());
}

DirectoryLock::~DirectoryLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace sparsam
