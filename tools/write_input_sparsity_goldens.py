#!/usr/bin/python3
"""Writes tests/data/golden/sparsity/*/inputs.json: thresholds of the projections' inputs as PyTorch finds them.

For the models that write_sparsity_goldens.py made, in double precision from the definition (TEAL, arXiv 2408.14690):
quantiles of |x| of each layer's four inputs over the calibration text by sorting, and under such thresholds the held-out
perplexity and the fraction of each input that is left out. Thresholds stand in the widest gap near the quantile, so that
rounding moves no value across them. The first DENSE positions of a sequence are whole and do not count.

    /usr/bin/python3 tools/write_input_sparsity_goldens.py
"""
import json
import math
import os

import torch

from goldens import GOLDEN, between, write_json
from torch_model import TorchModel, read_safetensors
from write_sparsity_goldens import CASES, LAYERS, V

DENSE = 2
INPUTS = {"q_proj": "qkv", "o_proj": "o", "up_proj": "up", "down_proj": "down", "k_proj": "qkv", "v_proj": "qkv",
          "gate_proj": "up"}


class Masked(TorchModel):
    """Leaves inputs below thresholds[layer][input] out of every projection; keeps what came in."""

    thresholds = None

    def linear(self, at, x):
        layer, matrix = int(at.split(".")[2]), at.split(".")[-1]
        name = INPUTS[matrix]
        if self.thresholds is not None:
            small = x.abs() < self.thresholds[layer][name]
            small[:, :DENSE] = False
            x = torch.where(small, torch.zeros_like(x), x)
        if matrix in ("q_proj", "o_proj", "up_proj", "down_proj"):
            self.kept[layer, name] = x.detach()
        return super().linear(at, x)

    def run(self, tokens):
        self.kept = {}
        logits = self(tokens[:, :-1])
        return torch.nn.functional.cross_entropy(logits.reshape(-1, V), tokens[:, 1:].reshape(-1)).item()


def main():
    for case in CASES:
        directory = os.path.join(GOLDEN, "sparsity", case)
        with open(os.path.join(directory, "config.json")) as file:
            config = json.load(file)
        with open(os.path.join(directory, "golden.json")) as file:
            golden = json.load(file)
        weights = read_safetensors(os.path.join(directory, "model.safetensors"))
        model = Masked(config, {k: w.double() for k, w in weights.items()})
        calibration, held_out = torch.tensor(golden["calibration"]), torch.tensor(golden["held_out"])
        calibration = torch.cat([calibration, calibration[:, :1]], 1)  # run() leaves the last token out
        result = dict(dense_positions=DENSE, points=[])
        with torch.no_grad():
            model.run(calibration)
            inputs = {key: x[:, DENSE:].abs().flatten() for key, x in model.kept.items()}
            for fraction in (0.25, 0.4, 0.5):
                quantiles = [{name: torch.quantile(inputs[i, name], fraction).item() for name in ("qkv", "o", "up", "down")}
                             for i in range(LAYERS)]
                model.thresholds = [{name: between(inputs[i, name], fraction) for name in ("qkv", "o", "up", "down")}
                                    for i in range(LAYERS)]
                loss = model.run(held_out)
                left_out = [{name: (model.kept[i, name] == 0).double().mean().item() for name in ("qkv", "o", "up", "down")}
                            for i in range(LAYERS)]
                result["points"].append(dict(fraction=fraction, quantiles=quantiles, thresholds=model.thresholds,
                                             perplexity=math.exp(loss), left_out=left_out))
                model.thresholds = None
        write_json(os.path.join(directory, "inputs.json"), result)
        print(case, golden["dense_perplexity"], [(p["fraction"], p["perplexity"]) for p in result["points"]])


if __name__ == "__main__":
    main()
