// ZIP archives whose members are stored as they are, such as torch writes: names to runs of bytes, nothing is unpacked.
// Source: PKWARE's APPNOTE 6.3, sections 4.3 (records) and 4.5.3 (zip64).
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/types.h"

namespace sparsam {

struct ZipMember {
  std::string name;
  std::span<const std::byte> bytes;
  u32 crc = 0;  // as the archive states it
};

// The members in the order of the directory at the end of `file`. Refused, since readers differ on them and a file
// could show each another face: compressed or encrypted members, names that stand twice, members that overlap, bytes
// after the end, a member whose own header says something else than the directory. The contents are not read: see
// check_crc().
std::vector<ZipMember> read_zip(std::span<const std::byte> file, const std::string& place);

// Error unless the member's bytes have the checksum that the archive states. Reads all of them.
void check_crc(const ZipMember& member, const std::string& place);

}  // namespace sparsam
