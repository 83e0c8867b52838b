# The same commands under the usual names; the work is in scripts/, which needs no make.
.PHONY: demo test bench format check setup

demo: ; scripts/demo $(DATA)
test: ; scripts/test
setup: ; scripts/setup --checks
check: ; .ci/run
bench: ; scripts/setup && scripts/build sparsam && build/release/sparsam bench --train mini
format: ; git ls-files '*.h' '*.cpp' | xargs clang-format-14 -i
