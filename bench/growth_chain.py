#!/usr/bin/python3
"""Does growing save training? A TokenFormer grown three times, beside models of its final size, on Penn Treebank.

    bench/growth_chain.py SPARSAM PTB OUT RESULTS [--scale S] [rates|train|table|plot ...]        (all unless named)

Sizes without embeddings: TokenFormers of width 80 and 6 layers with 60, 96, 152 and 240 tokens for each of q, k, v and o
and four times as many for the MLP: 0.46, 0.74, 1.17, 1.84 M parameters; transformers of 6 layers and width 80 (0.46 M) or
160 (1.84 M). Vocabulary 1,024, windows of 128 tokens, 8 a step, a cosine schedule with warm-up for every stage and run.

rates    the first stage of each architecture, its smallest size, at several learning rates; the lowest perplexity of
         ptb.valid.txt decides which of them goes on, and the rate of all runs of the architecture.
train    with S million tokens at the first size (published: 60 to 300 billion), a third of that for each growth:
         chain      grown twice over with keys of zeros; beside it the same from the same first model with the authors' way
                    (random keys and values), with a ramp, and with the optimizer's moments kept
         scratch    the final size from the beginning: with the chain's flops, with the chain's tokens
         transformer of the final size: with the chain's flops, with the chain's tokens
         these at the architecture's rate, a half and a quarter of it: the lowest perplexity of ptb.valid.txt counts
         cloned     a transformer of the first size for the first stage's tokens, widened by HyperCloning, then trained on
                    until the chain's flops are spent
table    Markdown: perplexity of ptb.test.txt (windows of 128 that move by 64) against training flops.
plot     RESULTS with .svg in place of .json: perplexity of ptb.valid.txt against cumulative flops.

Flops are those of the matrix products and attention, of the forward pass and twice as many for the backward pass. Models
lie in OUT, what was measured in the file RESULTS; what is there is not done again, and interrupted runs go on where they
stopped. One thread. S = 0.6 takes about half an hour of an idle core, S = 9 three hours of two.
"""
import argparse
import html
import json
import math
import os
import subprocess
import sys

WINDOW, BATCH, RATES = 128, 8, ["4e-3", "8e-3"]
SIZES = [60, 96, 152, 240]
WAYS = {"zero keys": ["--new", "zero-keys"], "published": ["--published"], "ramp": ["--new", "ramp"],
        "zero keys, moments kept": ["--new", "zero-keys", "--optimizer", "keep"]}
ORDER = ["zero keys", "scratch, same flops", "transformer, same flops", "cloned", "published", "transformer, same tokens",
         "scratch, same tokens", "zero keys, moments kept", "ramp"]
FLAGS = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
FLAGS.add_argument("sparsam"), FLAGS.add_argument("ptb"), FLAGS.add_argument("out"), FLAGS.add_argument("results")
FLAGS.add_argument("parts", nargs="*", default=["rates", "train", "table", "plot"])
FLAGS.add_argument("--scale", type=float, default=9, help="million tokens of the first stage")
A = FLAGS.parse_intermixed_args()


def text(part):
    return os.path.join(A.ptb, f"ptb.{part}.txt")


def path(name):
    return os.path.join(A.out, name.replace(", ", "-").replace(" ", "_"))


def read():
    if not os.path.exists(A.results):
        return {"scale": A.scale, "runs": {}}
    with open(A.results) as file:
        return json.load(file)


def keep(name, result):
    results = read()
    if results["scale"] != A.scale:
        sys.exit(f"{A.results} was measured at --scale {results['scale']}")
    results["runs"][name] = result
    with open(A.results + ".partial", "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    os.replace(A.results + ".partial", A.results)


def sparsam(*arguments):
    print(" ".join(["sparsam", *arguments]), file=sys.stderr, flush=True)
    output = subprocess.run([A.sparsam, *arguments, "--json", "--quiet", "--threads", "1"], stdout=subprocess.PIPE,
                            check=True).stdout
    return json.loads(output)


def tokenizer():
    """Byte pairs of the training text, learnt once."""
    kept = path("tokenizer")
    if not os.path.exists(os.path.join(kept, "tokenizer.json")):
        sparsam("train", "--preset", "nano", "--vocab", "1024", "--data", text("train"), "--steps", "1", "--out", kept,
                "--overwrite")
    return kept


def shape(kind, size):
    common = ["--layers", "6", "--context", str(WINDOW), "--tokenizer", tokenizer()]
    if kind == "tokens":
        return ["--preset", "tokenformer-nano", "--dim", "80", "--heads", "5", "--rotary-channels", "4",
                "--attention-tokens", str(size), "--mlp-tokens", str(4 * size), *common]
    hidden = 53 * size // 20  # gated: together with the attention 12 layers width^2
    return ["--preset", "nano", "--dim", str(size), "--heads", str(size // 16), "--kv-heads", str(size // 16),
            "--hidden", str(hidden), *common]


def steps_of(tokens):
    return max(1, round(tokens / (BATCH * WINDOW)))


def trained(name, how, steps, rate):
    """Trains, or goes on. Steps of a stage, tokens so far in it and the perplexity of unseen text at them."""
    out = path(name)
    started = os.path.isdir(out) and any(f.startswith("checkpoint-") for f in os.listdir(out))
    start = ["--resume"] if started else [
        *how, "--data", text("train"), "--valid", text("valid"), "--steps", str(steps), "--batch", str(BATCH),
        "--sequence", str(WINDOW), "--lr", rate, "--seed", "1", "--eval-every", str(max(1, steps // 5)), "--eval-tokens",
        "16384", "--save-every", "100", "--keep", "1"]
    run = sparsam("train", "--out", out, *start)
    with open(os.path.join(out, "metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    curve = [(line["tokens"], line["perplexity"]) for line in lines if "valid_loss" in line]
    costs = sparsam("inspect", out)
    return {"parameters": run["parameters"], "tokens": run["tokens"], "curve": curve,
            "flops_per_token": 3 * costs["flops_per_token"], "valid": run["validation"]["perplexity"]}


def judged(name):
    return sparsam("eval", path(name), "--data", text("test"), "--context", str(WINDOW), "--stride",
                   str(WINDOW // 2))["perplexity"]


FIRST = A.scale * 1e6  # tokens
KINDS = {"tokens": SIZES[0], "matrices": 80}


def stage(runs, name, how, tokens, rate):
    """One stage of training after those in `runs`, kept as the run `name`."""
    if name not in read()["runs"]:
        result = {"rate": rate, **trained(name, how() if callable(how) else how, steps_of(tokens), rate)}
        result["test"] = judged(name)
        keep(name, result)
        print(name, result["test"], file=sys.stderr, flush=True)
    return runs + [name]


def flops(names):
    runs = read()["runs"]
    return sum(runs[n]["tokens"] * runs[n]["flops_per_token"] for n in names)


def rates():
    for kind, size in KINDS.items():
        for rate in RATES:
            stage([], f"first {kind} {rate}", shape(kind, size), FIRST, rate)


def best_rate(kind):
    return min(RATES, key=lambda rate: read()["runs"][f"first {kind} {rate}"]["valid"])


def first(kind):
    return [f"first {kind} {best_rate(kind)}"]


def grown(name, before, arguments):
    if not os.path.exists(os.path.join(path(name), "config.json")):
        sparsam("grow", path(before), *arguments, "--out", path(name))
    return ["--from", path(name)] + (["--optimizer", "keep"] if "keep" in arguments else [])


def chain(way):
    names = first("tokens")
    for size in SIZES[1:]:
        arguments = ["--to-tokens", f"attention:{size},mlp:{4 * size}", *WAYS[way]]
        names = stage(names, f"{way} {size}", lambda: grown(f"grown {way} {size}", names[-1], arguments), FIRST / 3,
                      best_rate("tokens"))
    return names


def flops_per_token(kind, size):
    """Of a model that is not trained yet."""
    name = f"shape {kind} {size}"
    if not os.path.exists(path(name)):
        sparsam("train", *shape(kind, size), "--data", text("valid"), "--steps", "1", "--batch", "1", "--out", path(name))
    return 3 * sparsam("inspect", path(name))["flops_per_token"]


def at_rates(run, kind):
    """Names of the run at the architecture's rate, a half and a quarter of it."""
    return {f"{run} at {rate:g}": f"{rate:g}" for rate in (float(best_rate(kind)) / part for part in [1, 2, 4])}


def scratch(run, kind, size, how):
    for name, rate in at_rates(run, kind).items():
        if "train" in A.parts and name not in read()["runs"]:
            whole = flops(chain("zero keys"))
            tokens = 2 * FIRST if how == "same tokens" else whole / flops_per_token(kind, size)
            stage([], name, shape(kind, size), tokens, rate)
    runs = read()["runs"]
    return [min((name for name in at_rates(run, kind) if name in runs), key=lambda name: runs[name]["valid"])]


def cloned():
    names = first("matrices")
    if "cloned" in read()["runs"]:
        return names + ["cloned"]
    left = (flops(chain("zero keys")) - flops(names)) / flops_per_token("matrices", 160)
    return stage(names, "cloned", grown("grown cloned", names[-1], ["--dim", "2x"]), left, best_rate("matrices"))


def names_of(run):
    """The stages of a run, trained if they are not."""
    if run in WAYS:
        return chain(run)
    if run == "cloned":
        return cloned()
    start, how = run.split(", ")
    return scratch(run, *(("tokens", SIZES[-1]) if start == "scratch" else ("matrices", 160)), how)


def train():
    for run in ORDER:
        names_of(run)


def finished():
    """Runs whose last stage is there, at one rate at least."""
    runs = read()["runs"]
    ends = lambda run: f"{run} {SIZES[-1]}" if run in WAYS else run if run == "cloned" else f"{run} at "
    return [run for run in ORDER if any(name.startswith(ends(run)) for name in runs)]


def needed(points, perplexity):
    """Flops to a perplexity: a line through the logarithms of the two runs (flops, perplexity) nearest to it."""
    (x0, y0), (x1, y1) = [(math.log(x), math.log(y)) for x, y in sorted(points)[:2]]
    return math.exp(x0 + (math.log(perplexity) - y0) * (x1 - x0) / (y1 - y0))


def table():
    runs = read()["runs"]
    print("| run | parameters | tokens | training flops | validation | test |")
    print("|---|---:|---:|---:|---:|---:|")
    ends = {}
    for run in finished():
        names = names_of(run)
        for i, name in enumerate(names):
            if i + 1 < len(names) and run != "zero keys":
                continue
            spent = flops(names[: i + 1])
            tokens = sum(runs[n]["tokens"] for n in names[: i + 1])
            label = run if i + 1 == len(names) else f"{run}: stage {i + 1}"
            print(f"| {label} | {runs[name]['parameters']:,} | {tokens / 1e6:.2f} M | {spent:.3g} |"
                  f" {runs[name]['valid']:.2f} | {runs[name]['test']:.2f} |")
            ends[run] = (spent, runs[name]["test"])
    for start in ["scratch", "transformer"]:
        both = [ends[f"{start}, {how}"] for how in ["same flops", "same tokens"] if f"{start}, {how}" in ends]
        if len(both) == 2:
            for run in ["zero keys", "published", "cloned"]:
                if run in ends:
                    print(f"\n{run}: {ends[run][0]:.3g} flops; {start} to the same perplexity of the test text:"
                          f" {needed(both, ends[run][1]):.3g}", end="")
    print()


def plot():
    runs = read()["runs"]
    lines = {}
    for run in finished():
        points, spent = [], 0
        for name in names_of(run):
            cost = runs[name]["flops_per_token"]
            points += [(spent + tokens * cost, perplexity) for tokens, perplexity in runs[name]["curve"]]
            spent += runs[name]["tokens"] * cost
        lines[run] = points
    with open(A.results.replace(".json", ".svg"), "w") as file:
        file.write(svg(lines))


def svg(lines):
    width, height, left, bottom, colours = 760, 460, 64, 48, ["#1b6ca8", "#d1495b", "#66a182", "#edae49", "#7d5ba6",
                                                             "#2e4057", "#8d96a3", "#c06e52", "#00798c"]
    every = [p for points in lines.values() for p in points]
    most, low = max(x for x, _ in every), min(y for _, y in every) * 0.97
    high = min(max(y for _, y in every), 5 * low)  # the beginning is cut off
    place = lambda x, y: (left + x / most * (width - left - 16),
                          16 + (math.log(high) - math.log(min(y, high))) / math.log(high / low) * (height - bottom - 16))
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif"'
             f' font-size="12"><rect width="{width}" height="{height}" fill="white"/>']
    for i in range(6):
        x, y = most * i / 5, math.exp(math.log(low) + math.log(high / low) * i / 5)
        (px, _), (_, py) = place(x, low), place(0, y)
        parts.append(f'<path d="M{left} {py:.1f}H{width - 16}" stroke="#ddd"/>'
                     f'<text x="{left - 6}" y="{py + 4:.1f}" text-anchor="end">{y:.0f}</text>'
                     f'<text x="{px:.1f}" y="{height - bottom + 18}" text-anchor="middle">{x:.2g}</text>')
    parts.append(f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">cumulative training flops</text>'
                 f'<text transform="rotate(-90 14 {height / 2})" x="14" y="{height / 2}" text-anchor="middle">'
                 "perplexity of the validation text</text>")
    for i, (run, points) in enumerate(lines.items()):
        at = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        parts.append(f'<polyline points="{at}" fill="none" stroke="{colours[i]}" stroke-width="2"/>'
                     f'<text x="{width - 210}" y="{32 + 16 * i}" fill="{colours[i]}">{html.escape(run)}</text>')
    return "\n".join(parts) + "\n</svg>\n"


if __name__ == "__main__":
    os.makedirs(A.out, exist_ok=True)
    for part in A.parts:
        {"rates": rates, "train": train, "table": table, "plot": plot}[part]()
