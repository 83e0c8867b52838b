#!/usr/bin/python3
"""Writes tests/data/golden/l1/: tiny random models with the gradient of a loss that punishes active neurons, by PyTorch.

The loss is L_lm + LAMBDA sum over layers of mean over tokens and neurons of |h|, h being what enters the down projection
(before an inner norm). Each case holds config.json, model.safetensors (f32) and golden.safetensors with tokens
(B, T + 1), the gradient for every parameter, loss (L_lm alone), penalty (the sum over layers), and of each layer the
share of h that is not 0 and the share of neurons that no token activates. Computed in double precision; no
pre-activation is so near to a kink that float32 could take its other side.

    /usr/bin/python3 tools/write_l1_goldens.py
"""
import functools
import os

import torch
import torch.nn.functional as F

import goldens
from goldens import attention, gated, gradients, plain, random_weights, write_case
from torch_model import ACTIVATIONS, TorchModel

B, T, V, C = 2, 12, 31, 16
config = functools.partial(goldens.config, (T, V, C))
LAMBDA, LAYERS, HIDDEN = 0.75, 2, 24


def case(mlp, **other):
    return config([(attention(heads=2, kv_heads=2), mlp)] * LAYERS, **other)


CASES = {
    "silu": case(gated(hidden=HIDDEN)),
    "relu": case(gated(hidden=HIDDEN, activation="relu", bias=True)),
    "relu2_plain": case(plain(hidden=HIDDEN, activation="relu2")),
    "gelu_plain": case(plain(hidden=HIDDEN, bias=True), residual="parallel"),
    "drelu": case(gated(hidden=HIDDEN, activation="relu", activate_up=True)),
    "fatrelu": case(gated(hidden=HIDDEN, activation="fatrelu", threshold=0.0625, inner_norm=True)),
}


class Punished(TorchModel):
    """Keeps each layer's h, and how near any pre-activation came to a kink."""

    def activate(self, m, x):
        if m["activation"] == "fatrelu":
            self.nearest = min(self.nearest, (x - m["threshold"]).abs().min().item())
            return torch.where(x > m["threshold"], x, torch.zeros_like(x))
        if m["activation"].startswith("relu"):
            self.nearest = min(self.nearest, x.abs().min().item())
        return ACTIVATIONS[m["activation"]](x)

    def mlp(self, at, m, x):
        up = self.linear(at + "mlp.up_proj", x)
        if m["gated"]:
            gate = self.activate(m, self.linear(at + "mlp.gate_proj", x))
            h = gate * (self.activate(m, up) if m.get("activate_up") else up)
        else:
            h = self.activate(m, up)
        self.kept.append(h)
        if m.get("inner_norm"):
            h = self.rms(h, self.get(at + "mlp.ffn_sub_norm.weight"), self.d["norm"]["eps"])
        return self.linear(at + "mlp.down_proj", h)

    def run(self, tokens):
        self.kept, self.nearest = [], 1.0
        logits = self(tokens[:, :-1])
        return F.cross_entropy(logits.reshape(-1, V), tokens[:, 1:].reshape(-1))


def weights_of(cfg):
    weights = random_weights(cfg, 0.3)
    for i, layer in enumerate(cfg["sparsam"]["layers"]):
        if layer["mlp"].get("inner_norm"):
            weights[f"model.layers.{i}.mlp.ffn_sub_norm.weight"] = 1 + 0.2 * torch.randn(HIDDEN)
        if layer["mlp"]["bias"] and layer["mlp"]["activation"] == "relu":
            weights[f"model.layers.{i}.mlp.gate_proj.bias"][: 3 + i] = -100  # dead neurons
    return weights


def main():
    for name, cfg in CASES.items():
        for seed in range(100):
            torch.manual_seed(seed)
            weights = weights_of(cfg)
            tokens = torch.randint(0, V, (B, T + 1))
            model = Punished(cfg, {k: w.clone().double() for k, w in weights.items()})
            loss = model.run(tokens)
            if model.nearest > 1e-4:
                break
        penalty = sum(h.abs().mean() for h in model.kept)
        (loss + LAMBDA * penalty).backward()
        golden = {"tokens": tokens.to(torch.int32), "loss": loss.detach().float().reshape(1),
                  "penalty": penalty.detach().float().reshape(1),
                  "activation_ratio": torch.stack([(h != 0).double().mean() for h in model.kept]).float(),
                  "dead_neurons": torch.stack([(h == 0).all(0).all(0).double().mean() for h in model.kept]).float()}
        write_case(os.path.join("l1", name), cfg, model=weights, golden=golden | gradients(model))
        print(f"{name:12} seed {seed}, nearest kink {model.nearest:.1e}, loss {loss.item():.4f}, penalty {penalty.item():.4f},"
              f" active {golden['activation_ratio'].tolist()}, dead {golden['dead_neurons'].tolist()}")


if __name__ == "__main__":
    main()
