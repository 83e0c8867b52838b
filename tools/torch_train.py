#!/usr/bin/python3
"""The same training in PyTorch: the peer that `sparsam train` is measured against.

Speed (one line of JSON):
    tools/torch_train.py --config DIR/config.json --batch 32 --length 256 --steps 6 --precision bf16
Quality, on the token files that `sparsam train` leaves in its output directory, starting from random weights of the same
distribution and with the same schedule; prints the held-out loss in nats per token:
    tools/torch_train.py --config OUT/config.json --train TRAIN.bin --valid VALID.bin --steps 2000 --lr 1.5e-3 ...
"""
import argparse
import json
import math
import time

import numpy as np
import torch
import torch.nn.functional as F

from torch_model import TorchModel, canonical, shapes


def read_tokens(path):
    """A token file: "SPARSTOK", u32 version, u32 bytes per token, u64 vocab, count, hash, then the tokens."""
    header = np.fromfile(path, np.uint8, 40)
    assert header[:8].tobytes() == b"SPARSTOK", path
    width = int(header[12:16].view(np.uint32)[0])
    return np.memmap(path, np.uint16 if width == 2 else np.uint32, "r", offset=40).astype(np.int64)


def initial_weights(config):
    """Normal with deviation 1 / sqrt(in), branches into the residual stream over sqrt(2 L) less, tables 0.02."""
    weights, branch = {}, 1 / math.sqrt(2 * config["num_hidden_layers"])
    for name, shape in shapes(config):
        if len(shape) == 1:
            weights[name] = torch.ones(shape) if "norm" in name and name.endswith("weight") else torch.zeros(shape)
        elif "embed" in name or "lm_head" in name:
            weights[name] = torch.randn(shape) * 0.02
        else:
            scale = branch if "o_proj" in name or "down_proj" in name else 1.0
            weights[name] = torch.randn(shape) * scale / math.sqrt(shape[1])
    return weights


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--config", required=True)
    p.add_argument("--train"), p.add_argument("--valid")
    p.add_argument("--batch", type=int, default=32), p.add_argument("--length", type=int, default=256)
    p.add_argument("--steps", type=int, default=6), p.add_argument("--warmup", type=int, default=0)
    p.add_argument("--lr", type=float, default=1e-3), p.add_argument("--min-lr-fraction", type=float, default=0.1)
    p.add_argument("--decay", type=float, default=0.1), p.add_argument("--clip", type=float, default=1.0)
    p.add_argument("--beta2", type=float, default=0.95), p.add_argument("--eps", type=float, default=1e-8)
    p.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    p.add_argument("--threads", type=int, default=2), p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    with open(a.config) as file:
        config = canonical(json.load(file))
    model = TorchModel(config, initial_weights(config))
    optimizer = model.optimizer(a.lr, (0.9, a.beta2), a.eps, a.decay)
    data = read_tokens(a.train) if a.train else np.random.default_rng(a.seed).integers(0, config["vocab_size"], 1 << 20)
    order, cursor, offset = [], 0, 0
    random = np.random.default_rng(a.seed + 1)

    def loss_of(windows):
        batch = torch.from_numpy(windows)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.precision == "bf16"):
            logits = model(batch[:, :-1])
        return F.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1))

    def next_batch():
        nonlocal order, cursor, offset
        if cursor + a.batch > len(order):
            offset = int(random.integers(0, a.length))
            order, cursor = random.permutation((len(data) - 1 - offset) // a.length), 0
        chosen, cursor = order[cursor : cursor + a.batch], cursor + a.batch
        return np.stack([data[offset + i * a.length : offset + (i + 1) * a.length + 1] for i in chosen])

    seconds = []
    for step in range(a.steps):
        start = time.perf_counter()
        progress = max(0.0, (step - a.warmup) / max(1, a.steps - a.warmup))
        low = a.min_lr_fraction
        rate = (step + 1) / a.warmup if step < a.warmup else low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = a.lr * rate
        loss = loss_of(next_batch())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), a.clip)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        if a.train and step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f} {a.batch * a.length / seconds[-1]:.0f} tokens/s", flush=True)
    steady = sorted(seconds[1:] or seconds)
    result = dict(torch=torch.__version__, precision=a.precision, tokens_per_second=a.batch * a.length / steady[len(steady) // 2],
                  best_tokens_per_second=a.batch * a.length / steady[0], parameters=sum(p.numel() for p in model.parameters()))
    if a.valid:
        held = read_tokens(a.valid)
        total, count = 0.0, 0
        with torch.no_grad():
            for begin in range(0, len(held) - 1, a.length):
                window = held[None, begin : begin + a.length + 1]
                n = window.shape[1] - 1
                total, count = total + loss_of(window).item() * n, count + n
        result |= dict(valid_loss=total / count, valid_tokens=count)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
