// What a result was made with: for manifests.
#pragma once

#include "formats/json.h"

namespace sparsam {

std::string program_version();
Json environment_json();  // version, compiler, cpu, threads

}  // namespace sparsam
