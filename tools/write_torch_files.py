#!/usr/bin/env python3
"""Writes tests/data/golden/torch: files of torch.save that the reader in src/formats/torch_file.h must understand.

Needs torch (Debian: python3-torch). The numbers are those of arange, so that the test knows them without a second file.
"""
import collections
import pathlib
import torch

folder = pathlib.Path(__file__).resolve().parent.parent / "tests/data/golden/torch"
folder.mkdir(parents=True, exist_ok=True)


def numbers(count, dtype):
    return torch.arange(count, dtype=torch.float64).to(dtype)


layer = torch.nn.Linear(3, 2)
with torch.no_grad():
    layer.weight.copy_(numbers(6, torch.float32).reshape(2, 3))
    layer.bias.copy_(numbers(2, torch.float32))
torch.save(layer.state_dict(), folder / "linear.pt")  # an OrderedDict with _metadata

shared = numbers(12, torch.float32).reshape(3, 4)
tensors = collections.OrderedDict(
    f16=numbers(5, torch.float16),
    bf16=numbers(5, torch.bfloat16),
    f64=numbers(5, torch.float64),
    u8=numbers(5, torch.uint8),
    bool=numbers(5, torch.bool),
    i32=numbers(5, torch.int32),
    i64=numbers(5, torch.int64),
    scalar=torch.tensor(7.0),
    empty=torch.zeros(0, 3),
    shared=shared,
    tied=shared,
    rows=shared[1:],
    transposed=shared.t(),
    column=shared[:, 1],
    parameter=torch.nn.Parameter(numbers(4, torch.float32)),
)
for protocol in (2, 4):
    torch.save({"module": tensors}, folder / f"kinds{protocol}.pt", pickle_protocol=protocol)
torch.save({"step": 3, "w": shared}, folder / "training.pt")  # more than tensors: refused
torch.save(tensors, folder / "legacy.pt", _use_new_zipfile_serialization=False)  # before torch 1.6: refused
