// Renders the tree of a template.
#pragma once

#include <string>

#include "text/jinja_syntax.h"

namespace sparsam::jinja {

// `variables` are what the template sees; `runtime` bounds it and heads the errors. Errors: what the template does that
// Python would refuse or that is not supported, its own raise_exception(), and too much work.
std::string render(const Node& tree, Fields variables, Runtime& runtime);

}  // namespace sparsam::jinja
