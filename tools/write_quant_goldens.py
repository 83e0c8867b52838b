#!/usr/bin/python3
"""Writes tests/data/golden/quant/: what llama.cpp makes of quantised blocks.

TYPE.blocks     blocks: numbers that llama.cpp quantised, then random bytes, whose scales are any f16 (subnormal,
                infinite, NaN); TYPE.values: the float32 that its dequantize_row makes of them
input.f32       rows to quantise (ROWS, COLS), importance.f32 the importance (COLS)
errors.txt      TYPE, then for each row sum_e (x - y)^2 of ggml_quantize_chunk without importance, then for each row
                sum_e w_e (x_e - y_e)^2 with importance w

All numbers are little-endian. libggml-base.so comes with the npm package node-llama-cpp.

    /usr/bin/python3 tools/write_quant_goldens.py PATH/TO/libggml-base.so
"""
import ctypes
import os
import sys

import numpy as np

OUT = os.path.join(os.path.dirname(__file__), "..", "tests", "data", "golden", "quant")
TYPES = {  # name: (number in GGML, its name there, elements and bytes of a block)
    "q8_0": (8, "q8_0", 32, 34), "q4_0": (2, "q4_0", 32, 18), "q4_1": (3, "q4_1", 32, 20),
    "q5_0": (6, "q5_0", 32, 22), "q5_1": (7, "q5_1", 32, 24), "q2_k": (10, "q2_K", 256, 84),
    "q3_k": (11, "q3_K", 256, 110), "q4_k": (12, "q4_K", 256, 144), "q5_k": (13, "q5_K", 256, 176),
    "q6_k": (14, "q6_K", 256, 210), "iq4_nl": (20, "iq4_nl", 32, 18)}
COLS = 512
floats = ctypes.POINTER(ctypes.c_float)


def dequantise(ggml, name, blocks):
    number, spelt, elements, size = TYPES[name]
    y = np.zeros(len(blocks) // size * elements, np.float32)
    function = getattr(ggml, "dequantize_row_" + spelt)
    function.argtypes, function.restype = [ctypes.c_char_p, floats, ctypes.c_int64], None
    function(blocks, y.ctypes.data_as(floats), y.size)
    return y


def quantise(ggml, name, x, importance=None):
    """x (rows, cols) -> bytes"""
    number, _, elements, size = TYPES[name]
    out = ctypes.create_string_buffer(x.size // elements * size)
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, floats, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [floats]
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    weights = None if importance is None else importance.ctypes.data_as(floats)
    written = ggml.ggml_quantize_chunk(number, x.ctypes.data_as(floats), out, 0, x.shape[0], x.shape[1], weights)
    assert written == len(out)
    return out.raw


def rows(random):
    """One row of each kind of weight."""
    normal = random.standard_normal(COLS)
    kinds = [normal * 0.02,                                            # as trained
             random.standard_t(3, COLS) * 0.05,                        # heavy tails
             np.where(random.random(COLS) < 0.01, 30, 1) * random.standard_normal(COLS),  # outliers
             0.7 + 0.1 * random.standard_normal(COLS),                 # all positive
             -np.abs(random.standard_normal(COLS)) * 3,                # all negative
             random.uniform(-1, 1, COLS) * np.exp(3 * np.sin(np.arange(COLS) / 16)),  # groups of unlike size
             normal * 2e-6,                                            # scales below the normal f16
             np.where(np.arange(COLS) < 256, 0, random.standard_normal(COLS)),  # a block of zeros
             np.where(np.arange(COLS) % 64 < 32, 0.25, -1.5),          # groups of equal numbers
             random.laplace(size=COLS) * 0.1,
             np.sign(normal) * 0.01,                                   # two values
             random.standard_normal(COLS) * (random.random(COLS) < 0.2)]  # mostly zeros
    return np.ascontiguousarray(kinds, np.float32)


def main():
    ggml = ctypes.CDLL(sys.argv[1])

    class InitParams(ctypes.Structure):
        _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]
    ggml.ggml_init.argtypes, ggml.ggml_init.restype = [InitParams], ctypes.c_void_p
    ggml.ggml_init(InitParams(1 << 20, None, True))  # fills the tables that some types read

    os.makedirs(OUT, exist_ok=True)
    random = np.random.default_rng(20)
    x = rows(random)
    importance = np.exp(2 * random.standard_normal(COLS)).astype(np.float32)
    importance[::37] = 0  # columns that calibration never saw
    write = lambda name, data: open(os.path.join(OUT, name), "wb").write(data)
    write("input.f32", x.tobytes()), write("importance.f32", importance.tobytes())
    lines = []
    for name, (_, _, elements, size) in TYPES.items():
        plain, weighted = quantise(ggml, name, x), quantise(ggml, name, x, importance)
        count = 1024 // elements  # blocks of each kind
        some = plain[:count * size]
        blocks = some + random.bytes(count * size)
        write(name + ".blocks", blocks), write(name + ".values", dequantise(ggml, name, blocks).tobytes())
        wide = x.astype(np.float64)
        error = lambda stored, w: ((wide - dequantise(ggml, name, stored).reshape(x.shape).astype(np.float64))**2 * w).sum(1)
        with np.errstate(all="raise"):
            lines += [" ".join([name] + [f"{e:.9g}" for e in [*error(plain, 1.0), *error(weighted, importance)]])]
    write("errors.txt", ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
