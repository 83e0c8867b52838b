// For tests: what an action says when the world is wrong, and how much of a long text or a large number to take.
#pragma once

#include <string>

#include "base/error.h"

namespace sparsam {

// Tests that take long may do less where sanitizers make them slower still: the released build does all.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
constexpr bool sanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool sanitized = false;
#endif

// The text of the Error that `action` throws; "no error" where it throws none.
std::string error_of(auto&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace sparsam
