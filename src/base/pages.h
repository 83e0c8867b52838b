// The memory that mapped files take.
#pragma once

#include <cstddef>
#include <span>

namespace sparsam {

// Takes the whole pages within `mapped`, a part of a MappedFile, out of this process's memory. They can still be read:
// they then come back from the file. For what has been read and copied, so that it does not count twice.
void release_pages(std::span<const std::byte> mapped);

}  // namespace sparsam
