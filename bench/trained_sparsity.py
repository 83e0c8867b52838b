#!/usr/bin/python3
"""What training for sparsity buys: models of one size trained alike on Penn Treebank, thinned by the sparsing law.

    bench/trained_sparsity.py SPARSAM PTB OUT [train|measure|speed|table ...]        (all unless named)

train    three models of 4.3 M parameters on PTB/ptb.train.txt: SiLU, ReLU, ReLU with a progressive L1 penalty; the same
         text, tokenizer, seed, steps and learning rates. Interrupted runs go on where they stopped.
measure  of each model PPL-1, 5 and 10 %: thresholds from 16,384 tokens of ptb.train.txt, chosen on 8,192 of
         ptb.valid.txt, judged on the first 100 kB of ptb.test.txt, which neither training nor search has seen (perplexity, and KL
         divergence from the dense model), all in windows of 128 tokens that overlap by 16.
speed    decoding of the test text, sparse beside dense in one run: on a quiet machine.
table    prints what was measured as Markdown.

Results lie in OUT as JSON; what is there is not done again: remove a file to repeat it.
"""
import concurrent.futures
import json
import os
import shutil
import sys

from experiment import Experiment, interrupted

STEPS, BATCH, LENGTH = 600, 16, 128
SHAPE = ["--vocab", "2048", "--context", "128", "--layers", "4", "--dim", "256", "--heads", "8", "--kv-heads", "2",
         "--hidden", "1024"]
MODELS = {
    "silu": ["--activation", "silu"],
    "relu": ["--activation", "relu"],
    "relu-l1": ["--activation", "relu", "--l1", "0@10%,1e-2@40%,1e-1@80%"],
}
PERCENTS = [1, 5, 10]
WINDOWS = ["--context", "128", "--stride", "112"]
E = Experiment(*sys.argv[1:4])


def side_by_side(one):
    with concurrent.futures.ThreadPoolExecutor() as threads:
        list(threads.map(one, MODELS))


def train():
    def one(name):
        started = interrupted(E.path(name))
        how = ["--resume"] if started else [
            "--preset", "micro", *SHAPE, *MODELS[name], "--data", E.text("train"), "--valid", E.text("valid"),
            "--steps", str(STEPS), "--batch", str(BATCH), "--sequence", str(LENGTH), "--lr", "2e-3", "--seed", "1",
            "--eval-every", "200", "--save-every", "50", "--keep", "1"]
        E.run(name + ".train", "train", "--out", E.path(name), "--threads", "1", *how)

    side_by_side(one)


def measure():
    def one(name):
        for p in PERCENTS:
            thinned = f"{name}-{p}"
            if not os.path.exists(E.path(thinned + ".sparsity.json")):
                shutil.rmtree(E.path(thinned), ignore_errors=True)  # of an interrupted search
            E.run(thinned + ".sparsity", "sparsity", E.path(name), "--calibrate", calibration, "--data", E.text("valid"),
                  "--ppl", str(p), "--store", str(p), "--out", E.path(thinned), "--held-out-tokens", "8192", *WINDOWS)
            E.run(thinned + ".eval", "eval", E.path(thinned), "--data", judge, "--against", E.path(name), *WINDOWS)

    calibration, judge = E.beginning("train", 200_000), E.beginning("test", 100_000)
    side_by_side(one)


def speed():
    for name in MODELS:
        for thinned in [name] + [f"{name}-{p}" for p in PERCENTS]:
            E.run(thinned + ".bench", "bench", E.path(thinned), "--data", E.beginning("test", 100_000))


def table():
    print("| model | | live neurons | perplexity | KL | MLP bytes | dense tokens/s | sparse tokens/s | ratio |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")

    def number(value, form):
        return "" if value is None else format(value, form)

    def read(name):
        kept = E.path(name + ".json")
        return json.load(open(kept)) if os.path.exists(kept) else {}

    for name in MODELS:
        for p in [None] + PERCENTS:
            thinned = name if p is None else f"{name}-{p}"
            law, judged = read(f"{name}-{p or PERCENTS[0]}.sparsity"), read(f"{name}-{p or PERCENTS[0]}.eval")
            decode = read(thinned + ".bench")
            live = bytes_read = None
            if law:  # gate, the up rows that the gate leaves, the down rows of live neurons: a third of the MLP each
                live = 1 - (law["exact_zeros"] if p is None else law["ppl"][0]["sparsity"])
                bytes_read = (1 + 1 - law["gate_zeros"] + live) / 3
            perplexity, kl = judged.get("base_perplexity" if p is None else "perplexity"), judged.get("kl") if p else None
            print(f"| {name if p is None else ''} | {'lossless' if p is None else f'PPL-{p} %'} |"
                  f" {number(live, '.1%')} | {number(perplexity, '.2f')} | {number(kl, '.4f')} |"
                  f" {number(bytes_read, '.1%')} | {number(decode.get('dense_tokens_per_second'), '.0f')} |"
                  f" {number(decode.get('sparse_tokens_per_second'), '.0f')} |"
                  f" {number(decode.get('speedup'), '.2f')} |")


if __name__ == "__main__":
    for part in sys.argv[4:] or ["train", "measure", "speed", "table"]:
        {"train": train, "measure": measure, "speed": speed, "table": table}[part]()
