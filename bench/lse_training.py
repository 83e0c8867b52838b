#!/usr/bin/python3
"""What a token of training costs in sequences of 512 to 8192 tokens: one attention sublayer (24 heads of 32) forward and
backward over 8192 tokens, in sparsam and in PyTorch, with log-sum-exp and with softmax attention. One thread each, f32.

    cmake --build build/release --target bench_constant_cost
    /usr/bin/python3 bench/lse_training.py [--times 512,2048,8192] [--out results.json]

What has been measured is kept in --out and not measured again. PyTorch's log-sum-exp attention is the same chunked form,
over matrices (chunks of 64, a state for each); its softmax attention is written with matrix products and softmax. Beyond 2048
tokens it goes head by head and makes the scores again for the backward pass, since those of all heads fill the memory.
"""
import argparse
import json
import math
import os
import subprocess
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
TOKENS, C, H, E, CHUNK = 8192, 768, 24, 32, 64


def sparsam(program, kind, times):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run([program, "train", kind, *map(str, times)], env=environment, stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def softmax(torch, q, k, v):
    T = q.shape[2]
    hidden = torch.ones(T, T, dtype=torch.bool).triu(1)

    def one(q, k, v):
        s = q @ k.transpose(-1, -2) / math.sqrt(E)
        return torch.softmax(s.masked_fill(hidden, -math.inf), -1) @ v

    if T <= 2048:
        return one(q, k, v)
    from torch.utils.checkpoint import checkpoint
    return torch.stack([checkpoint(one, q[:, h], k[:, h], v[:, h]) for h in range(H)], 1)


def log_sum_exp(torch, q, k, v):
    """Chunks relative to the largest key of each channel so far, as src/ops/log_attention.h has it."""
    B, _, T, _ = q.shape
    q, k, v = (t.reshape(B, H, T // CHUNK, CHUNK, E) for t in (q, k, v))
    v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
    scale = k.detach().amax(3).cummax(2).values  # (B, H, chunks, E)
    psi = (k - scale[:, :, :, None]).exp()
    place = q + scale[:, :, :, None]
    phi = (place - place.detach().amax(-1, keepdim=True)).exp()
    added = psi.transpose(-1, -2) @ v
    states, state = [], torch.zeros_like(added[:, :, 0])
    for i in range(T // CHUNK):
        if i:
            state = state * (scale[:, :, i - 1] - scale[:, :, i]).exp()[..., None]
        states.append(state)
        state = state + added[:, :, i]
    out = phi @ torch.stack(states, 2) + (phi @ psi.transpose(-1, -2)).tril() @ v
    return (out[..., :E] / out[..., E:]).reshape(B, H, T, E)


def pytorch(kind, times, turns=3):
    import torch
    torch.set_num_threads(1)
    torch.manual_seed(1)
    attention = {"plain": log_sum_exp, "softmax": softmax}[kind]
    weights = [torch.nn.Parameter(torch.randn(C, C) * C ** -0.5) for _ in range(4)]
    gain = torch.nn.Parameter(torch.ones(C))
    for length in times:
        forward = both = 1e9
        for _ in range(turns):
            x = torch.randn(TOKENS // length, length, C, requires_grad=True)
            begin = time.perf_counter()
            n = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * gain
            q, k, v = ((n @ w.T).unflatten(-1, (H, E)).transpose(1, 2) for w in weights[:3])
            y = x + attention(torch, q, k, v).transpose(1, 2).flatten(2) @ weights[3].T
            forward = min(forward, time.perf_counter() - begin)
            y.backward(y.detach())
            both = min(both, time.perf_counter() - begin)
        yield dict(time=length, forward=1e9 * forward / TOKENS, both=1e9 * both / TOKENS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.path.join(ROOT, "build/release/bench_constant_cost"))
    parser.add_argument("--times", default="512,2048,8192")
    parser.add_argument("--out", default="lse_training.json")
    flags = parser.parse_args()
    times = [int(t) for t in flags.times.split(",")]
    results = json.load(open(flags.out)) if os.path.exists(flags.out) else {}
    for name, measure in {"lse": lambda: sparsam(flags.program, "lse", times),
                          "lse, plain": lambda: sparsam(flags.program, "plain", times),
                          "softmax": lambda: sparsam(flags.program, "softmax", times),
                          "PyTorch lse, plain": lambda: pytorch("plain", times),
                          "PyTorch softmax": lambda: pytorch("softmax", times)}.items():
        if name not in results:
            results[name] = list(measure())
            with open(flags.out + ".part", "w") as file:
                json.dump(results, file, indent=1)
            os.replace(flags.out + ".part", flags.out)
    print("| microseconds a token, forward and backward | " + " | ".join(f"T = {t}" for t in times) + " | dearest / cheapest |")
    print("|---" + "|--:" * (len(times) + 1) + "|")
    for name, rows in results.items():
        costs = [row["both"] / 1e3 for row in rows]
        print(f"| {name} | " + " | ".join(f"{cost:.2f}" for cost in costs) + f" | {max(costs) / min(costs):.2f} |")


if __name__ == "__main__":
    main()
