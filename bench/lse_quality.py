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
import json
import math
import os
import statistics
import subprocess
import sys

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
    "lse, decay, convolution, window": (336, FULL),
    "hybrid: every 4th layer softmax": (352, FULL + ["--softmax-every", "4"]),
    "softmax, convolution": (384, ["--convolution", "4"]),
}
TUNED = {"softmax": "softmax", "lse": "lse, decay, convolution"}  # whose rate serves which mixer
SPARSAM, PTB, OUT, RESULTS = sys.argv[1:5]


def text(part):
    return os.path.join(PTB, f"ptb.{part}.txt")


def read():
    if not os.path.exists(RESULTS):
        return {"rates": {}, "runs": {}}
    with open(RESULTS) as file:
        return json.load(file)


def keep(section, name, result):
    results = read()
    results[section][name] = result
    with open(RESULTS + ".partial", "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    os.replace(RESULTS + ".partial", RESULTS)


def sparsam(*arguments):
    output = subprocess.run([SPARSAM, *arguments, "--json", "--threads", "1"], stdout=subprocess.PIPE, check=True).stdout
    return json.loads(output)


def tokenizer():
    """Byte pairs of the training text, learnt once."""
    kept = os.path.join(OUT, "tokenizer")
    if not os.path.exists(os.path.join(kept, "tokenizer.json")):
        sparsam("train", "--preset", "nano", "--vocab", "1024", "--data", text("train"), "--steps", "1", "--out", kept,
                "--overwrite")
    return kept


def trained(variant, seed, rate, steps):
    hidden, options = VARIANTS[variant]
    path = os.path.join(OUT, f"{variant.replace(' ', '_').replace(':', '')}-{seed}-{rate}-{steps}")
    started = os.path.isdir(path) and any(f.startswith("checkpoint-") for f in os.listdir(path))
    how = ["--resume", "--out", path] if started else [
        "--out", path, "--preset", "nano", "--tokenizer", tokenizer(), "--layers", "4", "--dim", "128", "--heads", "4",
        "--hidden", str(hidden), *options, "--context", "256", "--sequence", "256", "--batch", "16", "--steps",
        str(steps), "--lr", rate, "--seed", str(seed), "--data", text("train"), "--valid", text("valid"),
        "--eval-every", "100000", "--eval-tokens", "0", "--save-every", "100", "--keep", "1"]
    return path, sparsam("train", *how)


def rates():
    for variant in TUNED.values():
        for rate in RATES:
            name = f"{variant} {rate}"
            if name not in read()["rates"]:
                _, run = trained(variant, 0, rate, RATE_STEPS)
                keep("rates", name, {"variant": variant, "rate": rate, "valid": run["validation"]["perplexity"]})


def best_rate(variant):
    tuned = TUNED["lse" if "lse" in VARIANTS[variant][1] else "softmax"]
    tried = [r for r in read()["rates"].values() if r["variant"] == tuned]
    return min(tried, key=lambda r: r["valid"])["rate"]


def train():
    for seed in SEEDS:
        for variant in VARIANTS:
            name = f"{variant} {seed}"
            if name in read()["runs"]:
                continue
            rate = best_rate(variant)
            try:
                path, run = trained(variant, seed, rate, STEPS)
            except subprocess.CalledProcessError as error:
                if error.returncode != 2:
                    raise
                continue  # a program that lacks an option of the variant has said so
            judged = {part: sparsam("eval", path, "--data", text(part), "--context", "256", "--stride", "128")["perplexity"]
                      for part in ["valid", "test"]}
            keep("runs", name, {"variant": variant, "seed": seed, "rate": rate, "parameters": run["parameters"],
                                "tokens": run["tokens"], "tokens_per_second": run["tokens_per_second"], **judged})
            print(name, judged, file=sys.stderr, flush=True)


def mean_and_error(values):
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.2f} ± {error:.2f}"


def table():
    runs = read()["runs"].values()
    print("| attention | parameters | rate | validation | test |")
    print("|---|---:|---:|---:|---:|")
    for variant in VARIANTS:
        own = [r for r in runs if r["variant"] == variant]
        if own:
            print(f"| {variant} | {own[0]['parameters']:,} | {own[0]['rate']} |"
                  f" {mean_and_error([r['valid'] for r in own])} | {mean_and_error([r['test'] for r in own])} |")


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    for part in sys.argv[5:] or ["rates", "train", "table"]:
        {"rates": rates, "train": train, "table": table}[part]()
