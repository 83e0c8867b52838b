#include "ops/activation.h"

#include <array>
#include <utility>

#include "base/error.h"

namespace sparsam {

namespace {
// Each function's own name first, then its synonyms in the files of others.
constexpr std::array<std::pair<std::string_view, Function>, 15> names{{{"relu", Function::relu},
                                                                       {"relu2", Function::relu2},
                                                                       {"gelu", Function::gelu},
                                                                       {"gelu_tanh", Function::gelu_tanh},
                                                                       {"silu", Function::silu},
                                                                       {"fatrelu", Function::fatrelu},
                                                                       {"sigmoid", Function::sigmoid},
                                                                       {"relu_squared", Function::relu2},
                                                                       {"gelu_python", Function::gelu},
                                                                       {"gelu_new", Function::gelu_tanh},
                                                                       {"gelu_fast", Function::gelu_tanh},
                                                                       {"gelu_pytorch_tanh", Function::gelu_tanh},
                                                                       {"gelu_accurate", Function::gelu_tanh},
                                                                       {"gelu_python_tanh", Function::gelu_tanh},
                                                                       {"swish", Function::silu}}};
}  // namespace

std::string_view name_of(Function function) {
  for (const auto& [name, value] : names)
    if (value == function) return name;
  return "?";
}

Function function_from_name(std::string_view wanted, std::string_view where) {
  for (const auto& [name, function] : names)
    if (name == wanted) return function;
  std::vector<std::string> known;
  for (const auto& entry : names) known.emplace_back(entry.first);
  fail_unknown("activation", wanted, known, where);
}

std::vector<std::string> function_names() {
  std::vector<std::string> known;
  for (const auto& [name, function] : names)
    if (name == name_of(function)) known.emplace_back(name);
  return known;
}

}  // namespace sparsam
