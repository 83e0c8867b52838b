#include "formats/zip.h"

#include <zlib.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "formats/byte_reader.h"
#include "formats/json.h"

namespace sparsam {

namespace {

constexpr u32 local_signature = 0x04034b50, entry_signature = 0x02014b50, end_signature = 0x06054b50;
constexpr u32 end64_signature = 0x06064b50, locator64_signature = 0x07064b50;
constexpr u64 end_bytes = 22, locator64_bytes = 20, end64_bytes = 56, most_comment_bytes = 0xffff;
constexpr u64 entry_bytes = 46;
constexpr u16 encrypted_flags = 1 | 1 << 6 | 1 << 13, sizes_follow_flag = 1 << 3, zip64_extra = 1;
constexpr u32 in_zip64 = 0xffffffff;

// Where the directory of the archive lies.
struct Directory {
  u64 entries, begin, end;
};

// An entry of the directory, or the header before a member, which must say the same.
struct Header {
  u16 flags, method;
  u32 crc;
  u64 stored_bytes, bytes;
  std::string_view name;
  u64 position = 0;  // of the member's own header
};

// Replaces the fields that did not fit into 32 bits by those in the extra field.
void read_zip64(std::string_view extra, const std::string& place, std::initializer_list<u64*> fields) {
  ByteReader reader(std::as_bytes(std::span(extra)), place);
  while (reader.remaining() >= 4) {
    const u16 kind = reader.number<u16>("extra field");
    const u16 size = reader.number<u16>("extra field");
    const auto data = reader.take(size, "extra field");
    if (kind != zip64_extra) continue;
    ByteReader values(data, place);
    for (u64* field : fields)
      if (*field == in_zip64) *field = values.number<u64>("zip64 field");
    return;
  }
}

Directory read_directory64(std::span<const std::byte> file, u64 locator, const std::string& place) {
  ByteReader reader(file, place);
  reader.seek(locator + 8, "zip64 locator");
  const u64 position = reader.number<u64>("zip64 locator");
  if (locator < end64_bytes || position > locator - end64_bytes)
    fail("{}: the zip64 end record is said to begin at byte {}, expected at most {}", place, position,
         static_cast<i64>(locator) - static_cast<i64>(end64_bytes));
  reader.seek(position, "zip64 end record");
  if (reader.number<u32>("zip64 end record") != end64_signature) fail("{}: the zip64 end record is damaged", place);
  reader.take(8 + 2 + 2 + 4 + 4, "zip64 end record");
  const u64 here = reader.number<u64>("zip64 end record"), entries = reader.number<u64>("zip64 end record");
  const u64 bytes = reader.number<u64>("zip64 end record"), begin = reader.number<u64>("zip64 end record");
  if (here != entries) fail("{}: an archive in several parts, expected one file", place);
  if (begin > position || bytes != position - begin)
    fail("{}: the directory is said to have {} bytes from byte {}, but it ends at {}", place, bytes, begin, position);
  return {entries, begin, position};
}

Directory find_directory(std::span<const std::byte> file, const std::string& place) {
  if (file.size() < end_bytes) fail("{}: {} bytes, expected a ZIP archive: at least {}", place, file.size(), end_bytes);
  const u64 last = file.size() - end_bytes, first = last > most_comment_bytes ? last - most_comment_bytes : 0;
  ByteReader reader(file, place);
  for (u64 position = last + 1; position-- > first;) {
    reader.seek(position, "end record");
    if (reader.number<u32>("end record") != end_signature) continue;
    const u16 disk = reader.number<u16>("end record"), start_disk = reader.number<u16>("end record");
    const u16 here = reader.number<u16>("end record"), entries = reader.number<u16>("end record");
    const u32 bytes = reader.number<u32>("end record"), begin = reader.number<u32>("end record");
    if (reader.number<u16>("end record") != last - position)
      fail("{}: bytes follow the end record of the archive at byte {}", place, position);
    if (position >= locator64_bytes) {
      reader.seek(position - locator64_bytes, "zip64 locator");
      if (reader.number<u32>("zip64 locator") == locator64_signature)
        return read_directory64(file, position - locator64_bytes, place);
    }
    if (disk != 0 || start_disk != 0 || here != entries)
      fail("{}: an archive in several parts, expected one file", place);
    if (begin > position || bytes != position - begin)
      fail("{}: the directory is said to have {} bytes from byte {}, but it ends at {}", place, bytes, begin, position);
    return {entries, begin, position};
  }
  fail("{}: no end record; the file is cut or is not a ZIP archive", place);
}

Header read_entry(ByteReader& reader) {
  if (reader.number<u32>("directory entry") != entry_signature)
    fail("{}: the directory entry at byte {} is damaged", reader.place(), reader.position() - 4);
  reader.take(2 + 2, "directory entry");
  Header entry{};
  entry.flags = reader.number<u16>("directory entry"), entry.method = reader.number<u16>("directory entry");
  reader.take(2 + 2, "directory entry");
  entry.crc = reader.number<u32>("directory entry");
  entry.stored_bytes = reader.number<u32>("directory entry"), entry.bytes = reader.number<u32>("directory entry");
  const u16 name = reader.number<u16>("directory entry"), extra = reader.number<u16>("directory entry");
  const u16 comment = reader.number<u16>("directory entry");
  reader.take(2 + 2 + 4, "directory entry");
  entry.position = reader.number<u32>("directory entry");
  entry.name = reader.text(name, "name of a member");
  read_zip64(reader.text(extra, "extra field"), reader.place(), {&entry.bytes, &entry.stored_bytes, &entry.position});
  reader.take(comment, "comment of a member");
  return entry;
}

Header read_local(ByteReader& reader) {
  const u64 position = reader.position();
  if (reader.number<u32>("header of a member") != local_signature)
    fail("{}: the member's header at byte {} is damaged", reader.place(), position);
  reader.take(2, "header of a member");
  Header local{};
  local.position = position;
  local.flags = reader.number<u16>("header of a member"), local.method = reader.number<u16>("header of a member");
  reader.take(2 + 2, "header of a member");
  local.crc = reader.number<u32>("header of a member");
  local.stored_bytes = reader.number<u32>("header of a member"), local.bytes = reader.number<u32>("header of a member");
  const u16 name = reader.number<u16>("header of a member"), extra = reader.number<u16>("header of a member");
  local.name = reader.text(name, "name of a member");
  read_zip64(reader.text(extra, "extra field"), reader.place(), {&local.bytes, &local.stored_bytes});
  return local;
}

// What both headers must agree on. Sizes and checksum may stand behind the member instead of before it.
void check_agreement(const Header& entry, const Header& local, const std::string& where) {
  if ((entry.flags | local.flags) & encrypted_flags) fail("{}: encrypted", where);
  if (entry.method != 0 || local.method != 0)
    fail("{}: compressed (method {}), expected stored as it is", where, std::max(entry.method, local.method));
  if (entry.flags != local.flags || entry.name != local.name)
    fail("{}: the directory and the member's own header differ in name or flags", where);
  if (entry.stored_bytes != entry.bytes)
    fail("{}: said to take {} bytes stored and {} unpacked", where, entry.stored_bytes, entry.bytes);
  const bool later = (local.flags & sizes_follow_flag) && local.bytes == 0 && local.stored_bytes == 0;
  if (!later && (local.bytes != entry.bytes || local.stored_bytes != entry.bytes || local.crc != entry.crc))
    fail("{}: the directory and the member's own header differ in size or checksum", where);
}

}  // namespace

std::vector<ZipMember> read_zip(std::span<const std::byte> file, const std::string& place) {
  const Directory directory = find_directory(file, place);
  if (directory.entries > (directory.end - directory.begin) / entry_bytes)
    fail("{}: {} members in a directory of {} bytes", place, directory.entries, directory.end - directory.begin);
  ByteReader reader(file.first(directory.end), place);
  reader.seek(directory.begin, "directory");
  std::vector<ZipMember> members;
  std::vector<std::pair<u64, u64>> ranges;
  std::set<std::string_view> names;
  for (u64 i = 0; i < directory.entries; ++i) {
    const Header entry = read_entry(reader);
    const std::string where = fmt::format("{}: member '{}'", place, printable(entry.name));
    if (!names.insert(entry.name).second) fail("{}: stands twice", where);
    ByteReader data(file.first(directory.begin), where);
    data.seek(entry.position, "its header");
    check_agreement(entry, read_local(data), where);
    members.push_back({std::string(entry.name), data.take(entry.bytes, "its data"), entry.crc});
    ranges.emplace_back(entry.position, data.position());
  }
  if (reader.remaining() != 0) fail("{}: {} bytes of the directory belong to no member", place, reader.remaining());
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i)
    if (ranges[i].first < ranges[i - 1].second)
      fail("{}: the member at byte {} overlaps the one before it, which ends at {}", place, ranges[i].first,
           ranges[i - 1].second);
  return members;
}

void check_crc(const ZipMember& member, const std::string& place) {
  const auto crc =
      static_cast<u32>(crc32_z(0, reinterpret_cast<const unsigned char*>(member.bytes.data()), member.bytes.size()));
  if (crc != member.crc)
    fail("{}: member '{}': checksum {:08x}, the archive says {:08x}", place, printable(member.name), crc, member.crc);
}

}  // namespace sparsam
