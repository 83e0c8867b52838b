#!/usr/bin/python3
"""What attention at constant cost can recall: multi-query associative recall of 4 to 64 pairs, learnt by small models
of one size with softmax and with log-sum-exp attention.

    bench/recall.py SPARSAM RESULTS [rates|probe|table ...]        (all unless named)

Models have 2 layers, 64 channels and 2 heads of 32, and learn in 1,500 steps of 32 sequences that never come again and
grow: first 4 pairs in 16 tokens, in the last fifth of the steps 4, 8, 16, 32 or 64 pairs in 256. The loss is that of
the answers alone.

rates    the learning rate, once for softmax and once for log-sum-exp attention: the lowest last loss of three decides.
probe    each variant at its mixer's rate; then 256 new sequences of 256 tokens of each number of pairs: the share of
         right answers.
table    prints what was measured as Markdown.

What was measured is kept in the file RESULTS and not done again. One thread; about a quarter of an hour on one core.
"""
import sys

from experiment import Experiment, Results

STEPS, BATCH, RATES = 1500, 32, ["1.5e-3", "3e-3", "6e-3"]
LSE, CONVOLUTION, SCALE = ["--mixer", "lse"], ["--convolution", "4"], ["--head-scale", "--initial-scale", "4"]
GATED = LSE + ["--decay"] + CONVOLUTION
VARIANTS = {
    "softmax": [],
    "softmax, convolution": CONVOLUTION,
    "lse": LSE,
    "lse, scale 4": LSE + SCALE,
    "lse, convolution": LSE + CONVOLUTION,
    "lse, convolution, scale 4": LSE + CONVOLUTION + SCALE,
    "lse, log values, convolution, scale 4": LSE + ["--log-values"] + CONVOLUTION + SCALE,
    "lse, decay, convolution": GATED,
    "lse, decay, convolution, scale 4": GATED + SCALE,
    "lse, decay, convolution, scale 4, heads of 64": GATED + SCALE + ["--head-dim", "64"],
    "lse, decay, convolution, scale 4, window 16": GATED + SCALE + ["--window", "16"],
    "lse, decay, convolution, scale 4, 2nd layer softmax": GATED + SCALE + ["--softmax-every", "2"],
}
TUNED = {"softmax": "softmax, convolution", "lse": "lse, decay, convolution, scale 4"}  # whose rate serves which mixer
E, RESULTS = Experiment(sys.argv[1]), Results(sys.argv[2])


def learnt(variant, rate):
    return E.sparsam("recall", "--preset", "nano", "--layers", "2", "--dim", "64", "--heads", "2", "--hidden", "128",
                     *VARIANTS[variant], "--curriculum", "--batch", str(BATCH), "--steps", str(STEPS), "--lr", rate,
                     "--seed", "1", "--threads", "1")


def rates():
    for variant in TUNED.values():
        for rate in RATES:
            RESULTS.once(lambda: {"rate": rate, **learnt(variant, rate)}, "rates", f"{variant} {rate}")


def best(variant):
    tried = RESULTS.read()["rates"]
    return min((tried[f"{variant} {rate}"] for rate in RATES), key=lambda r: r["loss"])


def probe():
    for variant, options in VARIANTS.items():
        of_mixer = TUNED["lse" if "lse" in options else "softmax"]
        tuned = best(of_mixer)
        rate = tuned["rate"]
        RESULTS.once(lambda: tuned if variant == of_mixer else {"rate": rate, **learnt(variant, rate)}, "runs", variant)


def table():
    runs = RESULTS.read()["runs"]
    pairs = [r["pairs"] for r in next(iter(runs.values()))["recall"]]
    print("| attention | parameters | rate | " + " | ".join(f"{p} pairs" for p in pairs) + " |")
    print("|---|---:|---:|" + "---:|" * len(pairs))
    for variant in VARIANTS:
        if variant in runs:
            run = runs[variant]
            print(f"| {variant} | {run['parameters']:,} | {run['rate']} | "
                  + " | ".join(f"{r['accuracy']:.1%}" for r in run["recall"]) + " |")


if __name__ == "__main__":
    for part in sys.argv[3:] or ["rates", "probe", "table"]:
        {"rates": rates, "probe": probe, "table": table}[part]()
