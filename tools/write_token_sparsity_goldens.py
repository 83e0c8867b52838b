#!/usr/bin/python3
"""Writes sparsity.json beside the tiny TokenFormers of tests/data/golden/tokenformer_*: what PyTorch measures of them.

The definitions are written down here from src/measure/activation_sparsity.h, contributions.h and src/levers/shrink.h, in
double precision, and share no code with the C++ sources: of each projection CETT and sparsity at some thresholds of
|s| |V|, the score and the share of each token; the mean loss with those thresholds; and the mean loss of the model without
the tokens that score least, its tau repaired.

    /usr/bin/python3 tools/write_token_sparsity_goldens.py
"""
import math
import os

import torch
import torch.nn.functional as F

from goldens import GOLDEN, between, write_json
from write_tokenformer_goldens import KINDS, T, V, TokenFormer

KEPT_ATTENTION, KEPT_FFN = 9, 18


class Measured(TokenFormer):
    """Keeps scores by projection; leaves out tokens below `thresholds`; has a tau of its own for each projection."""

    thresholds = None

    def __init__(self, weights, kind, tau=None):
        super().__init__(weights, kind)
        self.tau, self.kept = tau or {}, {}

    def pattention(self, at, x):
        a = x @ self.w[at + ".key_param_tokens"].T
        values = self.w[at + ".value_param_tokens"]
        tau = self.tau.get(at, math.sqrt(a.shape[-1]))
        if self.kind == "l2_norm_gelu":
            unit = a / a.norm(dim=-1, keepdim=True)
            s, share = F.gelu(tau * unit), unit**2
        elif self.kind == "gelu_l2_norm":
            g = F.gelu(a)
            unit = g / g.norm(dim=-1, keepdim=True)
            s, share = tau * unit, unit**2
        else:
            p = a.softmax(-1)
            s, share = tau**2 * p, p
        self.kept[at] = (s.flatten(0, 1), values, share.flatten(0, 1).mean(0), tau)
        if self.thresholds is not None:
            s = torch.where(s.abs() * values.norm(dim=1) < self.thresholds[at], torch.zeros_like(s), s)
        return s @ values

    def loss(self, tokens):
        return F.cross_entropy(self(tokens[:, :-1]).reshape(-1, V), tokens[:, 1:].reshape(-1)).item()


def score(s, values):
    return (s**2).mean(0) * values.norm(dim=1) ** 2 / (s @ values).norm(dim=1).pow(2).mean()


def main():
    for seed, kind in enumerate(KINDS):
        directory = os.path.join(GOLDEN, "tokenformer_" + kind)
        weights = {k: w.double() for k, w in torch.load(os.path.join(directory, "pytorch_model.bin")).items()}
        tokens = torch.randint(0, V, (8, T + 1), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            model = Measured(weights, kind)
            golden = dict(tokens=tokens.tolist(), loss=model.loss(tokens), sites=[])
            smaller, tau = dict(weights), {}
            thresholds = {}
            for at, (s, values, share, own_tau) in model.kept.items():
                lengths = s.abs() * values.norm(dim=1)
                levels = [between(lengths, q) for q in (0.2, 0.5, 0.8, 0.95)]
                cut = lambda t: torch.where(lengths < t, s, torch.zeros_like(s)) @ values
                whole = (s @ values).norm(dim=1)
                scores = score(s, values)
                golden["sites"].append(dict(thresholds=levels, cett=[(cut(t).norm(dim=1) / whole).mean().item() for t in levels],
                                            sparsity=[(lengths < t).double().mean().item() for t in levels],
                                            scores=scores.tolist(), shares=share.tolist()))
                thresholds[at] = levels[1]
                stay = scores.topk(KEPT_FFN if at.endswith("mlp") else KEPT_ATTENTION).indices.sort().values
                for part in ("key", "value"):
                    smaller[f"{at}.{part}_param_tokens"] = weights[f"{at}.{part}_param_tokens"][stay]
                removed = 1 - share[stay].sum().item()
                tau[at] = own_tau * math.sqrt(1 - removed)
            model.thresholds = thresholds
            golden["loss_at_second_threshold"] = model.loss(tokens)
            golden["kept"] = dict(attention=KEPT_ATTENTION, mlp=KEPT_FFN)
            golden["shrunk_loss"] = Measured(smaller, kind, tau).loss(tokens)
        write_json(os.path.join(directory, "sparsity.json"), golden)
        print(kind, golden["loss"], golden["loss_at_second_threshold"], golden["shrunk_loss"])


if __name__ == "__main__":
    main()
