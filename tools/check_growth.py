#!/usr/bin/python3
"""Grown models in PyTorch: what `sparsam grow` writes is of the same family and gives the same logits.

    tools/check_growth.py build/release/sparsam

Models are those under tests/data/golden; torch_model.py, which shares no code with the sources, reads them before and
after three growths: twice as wide, more neurons, deeper.
"""
import json
import os
import subprocess
import sys
import tempfile

import torch

import torch_model

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "tests", "data", "golden")
MODELS = ["llama_gqa", "architectures/smollm", "neox"]
STEPS = [["--dim", "2x"], ["--hidden", "3x"], ["--layers"]]
ROUNDING = 2e-5
VOCABULARY = 61


def architecture(directory):
    with open(os.path.join(directory, "config.json")) as file:
        config = json.load(file)
    return config["architectures"], config["num_hidden_layers"]


def logits(directory):
    model = torch_model.load(directory)
    torch.manual_seed(1)
    with torch.no_grad():
        return model(torch.randint(0, VOCABULARY, (2, 12)))


def main():
    sparsam, worst = sys.argv[1], 0
    for name in MODELS:
        directory = os.path.join(GOLDEN, name)
        family, layers = architecture(directory)
        before = logits(directory)
        with tempfile.TemporaryDirectory() as work:
            for i, step in enumerate(STEPS):
                out = os.path.join(work, str(i))
                step = step + [str(layers + 2)] if step == ["--layers"] else step
                subprocess.run([sparsam, "grow", directory, *step, "--noise", "0.2", "--out", out], check=True,
                               stdout=subprocess.DEVNULL)
                directory = out
            after = logits(directory)
            difference = ((before - after).abs().max() / before.abs().max()).item()
            worst = max(worst, difference)
            print(f"{name:24} {str(family):28} largest difference {difference:.1e}")
            if architecture(directory)[0] != family or not difference < ROUNDING:
                sys.exit(f"{name}: grown into {architecture(directory)[0]}, difference {difference}")
    print(f"{len(MODELS)} models, three growths each: at most {worst:.1e} of the largest logit")


if __name__ == "__main__":
    main()
