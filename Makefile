# The same commands under the usual names; the work is in scripts/, which needs no make.
.PHONY: demo test bench format check setup tidy

demo: ; scripts/demo $(DATA)
test: ; scripts/test
setup: ; scripts/setup --checks
check: ; .ci/run
bench: ; scripts/setup && scripts/build sparsam && build/release/sparsam bench --train mini
tidy: ; cmake --preset release >/dev/null && git ls-files 'src/*.cpp' ':!src/*_test.cpp' | xargs -P2 -n1 clang-tidy-14 --quiet -p build/release
format: ; git ls-files '*.h' '*.cpp' | xargs clang-format-14 -i
