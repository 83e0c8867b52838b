#!/usr/bin/python3
"""What attention at constant cost can recall: multi-query associative recall of 4 to 64 pairs, learnt by small models
of one size with softmax and with log-sum-exp attention.

    bench/recall.py SPARSAM RESULTS [probe|table ...]        (both unless named)

probe    each variant: 2 layers, 64 channels, 2 heads of 32; 1,000 steps of 16 sequences of 256 tokens that hold 4, 8, 16,
         32 or 64 pairs and never come again; the loss is that of the answers alone. Then 256 new sequences of each number
         of pairs: the share of right answers.
table    prints what was measured as Markdown.

What was measured is kept in the file RESULTS and not done again. One thread.
"""
import sys

from experiment import Experiment, Results

STEPS, BATCH = 1000, 16
GATED = ["--mixer", "lse", "--decay"]
VARIANTS = {
    "softmax": [],
    "softmax, convolution": ["--convolution", "4"],
    "lse": ["--mixer", "lse"],
    "lse, log values": ["--mixer", "lse", "--log-values"],
    "lse, decay": GATED,
    "lse, decay, convolution": GATED + ["--convolution", "4"],
    "lse, decay, convolution, window": GATED + ["--convolution", "4", "--window", "16"],
    "hybrid: every 2nd layer softmax": GATED + ["--convolution", "4", "--window", "16", "--softmax-every", "2"],
}
E, RESULTS = Experiment(sys.argv[1]), Results(sys.argv[2])


def probe():
    def measure(options):
        return E.sparsam("recall", "--preset", "nano", "--layers", "2", "--dim", "64", "--heads", "2", "--hidden", "128",
                         *options, "--batch", str(BATCH), "--steps", str(STEPS), "--lr", "1e-2", "--seed", "1", "--threads",
                         "1")

    for variant, options in VARIANTS.items():
        RESULTS.once(lambda: measure(options), variant)


def table():
    results = RESULTS.read()
    pairs = [r["pairs"] for r in next(iter(results.values()))["recall"]]
    print("| attention | parameters | " + " | ".join(f"{p} pairs" for p in pairs) + " |")
    print("|---|---:|" + "---:|" * len(pairs))
    for variant in VARIANTS:
        if variant in results:
            print(f"| {variant} | {results[variant]['parameters']:,} | "
                  + " | ".join(f"{r['accuracy']:.1%}" for r in results[variant]["recall"]) + " |")


if __name__ == "__main__":
    for part in sys.argv[3:] or ["probe", "table"]:
        {"probe": probe, "table": table}[part]()
