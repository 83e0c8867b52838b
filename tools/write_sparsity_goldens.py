#!/usr/bin/python3
"""Writes tests/data/golden/sparsity/: tiny trained models with their activation sparsity as PyTorch measures it.

Each case holds config.json, model.safetensors (f32) and golden.json: the tokens of the calibration and the held-out
text; for each layer the exact zeros, the gate's zeros and, at some thresholds, CETT and sparsity; for some percentages p
the held-out perplexity and the sparsity at the greatest CETT that raises the perplexity by at most p %. Everything is
computed in double precision from the definitions (arXiv 2411.02335, section 3): each CETT by leaving neurons out and
multiplying, each threshold by bisection.

    /usr/bin/python3 tools/write_sparsity_goldens.py [CASE...]
"""
import math
import os
import sys

import torch
import torch.nn.functional as F

from goldens import attention, between, config, gated, plain, write_case, write_json
from torch_model import ACTIVATIONS, TorchModel, shapes

T, V, C, LAYERS = 24, 61, 32, 2
HELD_OUT = {"gelu_plain": 640}  # sequences; else 160. Its perplexity rises slowly: one neuron must show less
ROUNDS = 20  # of the bisection of the CETT on [0, 1]
CASES = {
    "silu": [(attention(), gated(activation="silu"))] * LAYERS,
    "relu": [(attention(), gated(activation="relu"))] * LAYERS,
    "gelu_plain": [(attention(), plain(activation="gelu_tanh", hidden=48))] * LAYERS,
    "relu2_plain": [(attention(), plain(activation="relu2", hidden=48))] * LAYERS,
}


class Measured(TorchModel):
    """Keeps each layer's gate and neurons; leaves out neurons below `thresholds`, one a layer."""

    thresholds = None

    def mlp(self, at, m, x):
        i = int(at.split(".")[2])
        down = self.get(at + "mlp.down_proj.weight")
        up = self.linear(at + "mlp.up_proj", x)
        f = ACTIVATIONS[m["activation"]]
        gate = f(self.linear(at + "mlp.gate_proj", x)) if m["gated"] else None
        h = gate * up if m["gated"] else f(up)
        self.kept[i] = (gate, h.detach())
        if self.thresholds is not None:
            h = torch.where(h.abs() * down.norm(dim=0) < self.thresholds[i], torch.zeros_like(h), h)
            self.left_out[i] = (h == 0).double().mean().item()
        return F.linear(h, down)

    def run(self, tokens):
        """Mean loss of every token after the first of each sequence."""
        self.kept, self.left_out = {}, {}
        logits = self(tokens[:, :-1])
        return F.cross_entropy(logits.reshape(-1, V), tokens[:, 1:].reshape(-1))


def sample(count, generator):
    """Sequences of a Markov chain with four likely followers for each token."""
    followers = torch.randint(0, V, (V, 4), generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(0, V, (count, 1), generator=generator)
    for _ in range(T):
        choice = torch.randint(0, 4, (count,), generator=generator)
        step = followers[tokens[:, -1], choice]
        stray = torch.rand(count, generator=generator) < 0.1
        step = torch.where(stray, torch.randint(0, V, (count,), generator=generator), step)
        tokens = torch.cat([tokens, step[:, None]], 1)
    return tokens


def cett(h, down, threshold):
    small = torch.where(h.abs() * down.norm(dim=0) < threshold, h, torch.zeros_like(h))
    return (F.linear(small, down).norm(dim=-1) / F.linear(h, down).norm(dim=-1)).mean().item()


def threshold_at(h, down, limit):
    low, high = 1e-12, (h.abs() * down.norm(dim=0)).max().item() * 2
    if cett(h, down, high) <= limit:
        return high
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if cett(h, down, middle) <= limit else (low, middle)
    return low


def main():
    for seed, (name, layers) in enumerate(CASES.items()):
        if len(sys.argv) > 1 and name not in sys.argv[1:]:
            continue
        cfg = config((T, V, C), layers)
        torch.manual_seed(seed)
        weights = {k: torch.randn(s) / math.sqrt(s[-1]) if len(s) > 1 else torch.ones(s) for k, s in shapes(cfg)}
        model = Measured(cfg, weights)
        generator = torch.Generator().manual_seed(seed)
        optimizer = model.optimizer(3e-3, (0.9, 0.95), 1e-8, 0.1)
        for _ in range(400):
            loss = model.run(sample(32, generator))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        weights = {k: p.detach().clone() for k, p in model.named().items()}
        model = Measured(cfg, {k: w.double() for k, w in weights.items()})
        calibration, held_out = sample(40, generator), sample(HELD_OUT.get(name, 160), generator)
        with torch.no_grad():
            model.run(calibration)
            kept = model.kept
            downs = [model.get(f"model.layers.{i}.mlp.down_proj.weight") for i in range(LAYERS)]
            golden = dict(calibration=calibration[:, :-1].tolist(), held_out=held_out.tolist(), layers=[], points=[])
            for i, down in enumerate(downs):
                gate, h = kept[i]
                norms = h.abs() * down.norm(dim=0)
                at = [between(norms, q) for q in (0.3, 0.5, 0.7, 0.9, 0.99)]
                at = [t for t in at if t > 0]
                golden["layers"].append(dict(
                    exact_zeros=(h == 0).double().mean().item(),
                    gate_zeros=0.0 if gate is None else (gate == 0).double().mean().item(),
                    thresholds=at, cett=[cett(h, down, t) for t in at],
                    sparsity=[(norms < t).double().mean().item() for t in at]))
            dense = model.run(held_out).item()
            golden["dense_perplexity"] = math.exp(dense)

            def at_cett(c):
                model.thresholds = [threshold_at(kept[i][1], downs[i], c) for i in range(LAYERS)]
                loss = model.run(held_out).item()
                return loss, model.thresholds, [model.left_out[i] for i in range(LAYERS)]

            for p in (1, 5, 10):
                low, high = 0.0, 1.0
                for _ in range(ROUNDS):
                    middle = (low + high) / 2
                    low, high = (middle, high) if math.exp(at_cett(middle)[0] - dense) <= 1 + p / 100 else (low, middle)
                loss, thresholds, left_out = at_cett(low)
                golden["points"].append(dict(percent=p, cett=low, perplexity=math.exp(loss), thresholds=thresholds,
                                             layer_sparsity=left_out, sparsity=sum(left_out) / LAYERS))
        directory = write_case(os.path.join("sparsity", name), cfg, model=weights)
        write_json(os.path.join(directory, "golden.json"), golden)
        print(name, golden["dense_perplexity"], golden["layers"][0]["exact_zeros"],
              [(p["percent"], p["cett"], p["sparsity"]) for p in golden["points"]])


if __name__ == "__main__":
    main()
