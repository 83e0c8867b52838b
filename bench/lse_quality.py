#!/usr/bin/python3
"""How good attention at constant cost is: models of one size trained alike on Penn Treebank, three seeds each.

    bench/lse_quality.py SPARSAM PTB OUT RESULTS [rates|train|table ...]        (all unless named)

rates    the learning rate, once for softmax and once for log-sum-exp attention: 250 steps at three rates, seed 0; the
         lowest perplexity of ptb.valid.txt decides.
train    every variant with seeds 1, 2 and 3: 1.0 M parameters (equal within 1 %: the MLPs make up for what a variant
         adds), 4 layers, 128 channels, 4 heads, vocabulary 1,024, 432 steps of 16 windows of 256 tokens (1.8 M
         tokens, one pass); then the perplexity of ptb.valid.txt and ptb.test.txt in windows of 256 tokens that move by 128.
table    prints means and standard errors over the seeds as Markdown.

Models lie in OUT, what was measured in the file RESULTS; what is there is not done again, and interrupted runs go on
where they stopped. One thread; about an hour on one core.
"""
import math
import os
import statistics
import sys

from experiment import Experiment, Results, interrupted

STEPS, RATE_STEPS, RATES, SEEDS = 432, 250, ["2e-3", "4e-3", "8e-3"], [1, 2, 3]
GATED = ["--mixer", "lse", "--decay"]
FULL = GATED + ["--convolution", "4", "--window", "16"]
VARIANTS = {  # hidden channels of the MLP, options
    "softmax": (384, []),
    "lse": (384, ["--mixer", "lse"]),
    "lse, learned positions": (360, ["--mixer", "lse", "--positions", "learned"]),
    "lse, log values": (384, ["--mixer", "lse", "--log-values"]),
    "lse, decay": (344, GATED),
    "lse, decay, convolution": (336, GATED + ["--convolution", "4"]),
    "lse, decay, convolution, scale 4": (336, GATED + ["--convolution", "4", "--head-scale", "--initial-scale", "4"]),
    "lse, decay, convolution, window": (336, FULL),
    "hybrid: every 4th layer softmax": (352, FULL + ["--softmax-every", "4"]),
    "softmax, convolution": (384, ["--convolution", "4"]),
}
TUNED = {"softmax": "softmax", "lse": "lse, decay, convolution"}  # whose rate serves which mixer
E, RESULTS = Experiment(*sys.argv[1:4]), Results(sys.argv[4])


def sparsam(*arguments):
    return E.sparsam(*arguments, "--threads", "1")


def tokenizer():
    """Byte pairs of the training text, learnt once."""
    kept = E.path("tokenizer")
    if not os.path.exists(os.path.join(kept, "tokenizer.json")):
        sparsam("train", "--preset", "nano", "--vocab", "1024", "--data", E.text("train"), "--steps", "1", "--out", kept,
                "--overwrite")
    return kept


def trained(variant, seed, rate, steps):
    hidden, options = VARIANTS[variant]
    path = E.path(f"{variant.replace(' ', '_').replace(':', '')}-{seed}-{rate}-{steps}")
    how = ["--resume", "--out", path] if interrupted(path) else [
        "--out", path, "--preset", "nano", "--tokenizer", tokenizer(), "--layers", "4", "--dim", "128", "--heads", "4",
        "--hidden", str(hidden), *options, "--context", "256", "--sequence", "256", "--batch", "16", "--steps",
        str(steps), "--lr", rate, "--seed", str(seed), "--data", E.text("train"), "--valid", E.text("valid"),
        "--eval-every", "100000", "--eval-tokens", "0", "--save-every", "100", "--keep", "1"]
    return path, sparsam("train", *how)


def rates():
    def measure(variant, rate):
        _, run = trained(variant, 0, rate, RATE_STEPS)
        return {"variant": variant, "rate": rate, "valid": run["validation"]["perplexity"]}

    for variant in TUNED.values():
        for rate in RATES:
            RESULTS.once(lambda: measure(variant, rate), "rates", f"{variant} {rate}")


def best_rate(variant):
    tuned = TUNED["lse" if "lse" in VARIANTS[variant][1] else "softmax"]
    tried = [r for r in RESULTS.read()["rates"].values() if r["variant"] == tuned]
    return min(tried, key=lambda r: r["valid"])["rate"]


def train():
    def measure(variant, seed):
        rate = best_rate(variant)
        path, run = trained(variant, seed, rate, STEPS)
        judged = {part: sparsam("eval", path, "--data", E.text(part), "--context", "256", "--stride", "128")["perplexity"]
                  for part in ["valid", "test"]}
        return {"variant": variant, "seed": seed, "rate": rate, "parameters": run["parameters"], "tokens": run["tokens"],
                "tokens_per_second": run["tokens_per_second"], **judged}

    for seed in SEEDS:
        for variant in VARIANTS:
            RESULTS.once(lambda: measure(variant, seed), "runs", f"{variant} {seed}")


def mean_and_error(values):
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.2f}"


def table():
    runs = RESULTS.read()["runs"].values()
    print("| attention | parameters | rate | validation | test |")
    print("|---|---:|---:|---:|---:|")
    for variant in VARIANTS:
        own = [r for r in runs if r["variant"] == variant]
        if own:
            print(f"| {variant} | {own[0]['parameters']:,} | {own[0]['rate']} |"
                  f" {mean_and_error([r['valid'] for r in own])} | {mean_and_error([r['test'] for r in own])} |")


if __name__ == "__main__":
    for part in sys.argv[5:] or ["rates", "train", "table"]:
        {"rates": rates, "train": train, "table": table}[part]()
