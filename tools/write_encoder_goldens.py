#!/usr/bin/python3
"""Writes tests/data/golden/encoder/: tiny encoders with what PyTorch computes for a padded batch.

Each case holds config.json, model.safetensors (f32) and golden.safetensors with tokens (B, T) of which `lengths` (B)
are real, targets ((B, T), -1 where nothing is to be predicted; of a classifier (B)), the logits ((B, T, V), padding
included, or (B, classes)), the mean loss of the predictions, and its gradient for every parameter. Computed in double
precision and stored as f32. Padding is hidden by a mask of keys; what a classifier's mean leaves out is written out.

    /usr/bin/python3 tools/write_encoder_goldens.py
"""
import functools
import os

import torch
import torch.nn.functional as F

import goldens
from goldens import attention, gated, gradients, log_sum_exp, plain, random_weights, write_case
from torch_model import TorchModel

B, T, V, C, LAYERS = 3, 20, 31, 16, 2
config = functools.partial(goldens.config, (T, V, C))
softmax = functools.partial(attention, heads=2, kv_heads=2)
lse = functools.partial(log_sum_exp, heads=2, kv_heads=2)
LENGTHS = torch.tensor([20, 7, 1])
LABELS = ["negative", "neutral", "positive"]


def case(mixer, mlp, classifies, **other):
    cfg = config([(mixer, mlp)] * LAYERS, **other)
    cfg["sparsam"]["causal"] = False
    cfg["architectures"] = ["SparsamForMaskedLM"]
    if classifies:
        cfg["architectures"] = ["SparsamForSequenceClassification"]
        cfg["sparsam"]["classifier"] = dict(pooling="mean")
        cfg["id2label"] = {str(i): label for i, label in enumerate(LABELS)}
        cfg["label2id"] = {label: i for i, label in enumerate(LABELS)}
    return cfg


CASES = {
    "softmax_masked": case(softmax(qkv_bias=True), plain(hidden=24, bias=True), False, tied=False, positions="learned",
                           norm=dict(kind="layer", gain=True, bias=True, eps=1e-5)),
    "softmax_classifier": case(softmax(kv_heads=1, qk_norm=True), gated(hidden=24), True),
    "lse_masked": case(lse(convolution=3, head_scale=True, key_cap=2.5), gated(hidden=24), False, positions="learned"),
    "lse_classifier": case(lse(kv_heads=1, value_dim=6, log_values=True), plain(hidden=24), True, tied=False,
                           positions="learned"),
}


def main():
    for seed, (name, cfg) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        weights = random_weights(cfg, 0.3)
        tokens = torch.randint(0, V, (B, T))
        real = torch.arange(T) < LENGTHS[:, None]
        if "classifier" in cfg["sparsam"]:
            targets = torch.tensor([2, 0, 1])
        else:
            targets = torch.where(real & (torch.rand(B, T) < 0.4), torch.randint(0, V, (B, T)), torch.tensor(-1))
        model = TorchModel(cfg, {k: w.clone().double() for k, w in weights.items()})
        logits = model(tokens, LENGTHS)
        loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-1)
        loss.backward()
        golden = {"tokens": tokens.to(torch.int32), "lengths": LENGTHS.to(torch.int32), "targets": targets.to(torch.int32),
                  "logits": logits.detach().float(), "loss": loss.detach().float().reshape(1)} | gradients(model)
        write_case(os.path.join("encoder", name), cfg, model=weights, golden=golden)
        print(f"{name:20} loss {loss.item():.4f} of {(targets >= 0).sum().item()} predictions")


if __name__ == "__main__":
    main()
