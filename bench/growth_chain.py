#!/usr/bin/python3
"""Does growing save training? A TokenFormer grown three times, beside models of its final size, on Penn Treebank.

    bench/growth_chain.py SPARSAM PTB OUT RESULTS [--scale S] [--rate R | --rates-of OTHER] [train|table|plot ...]

Sizes without embeddings: TokenFormers of width 80 and 6 layers with 60, 96, 152 and 240 tokens for each of q, k, v and o
and four times as many for the MLP: 0.46, 0.74, 1.17, 1.84 M parameters; transformers of 6 layers and width 80 (0.46 M) or
160 (1.84 M). Vocabulary 1,024, windows of 128 tokens, 8 a step, a cosine schedule with warm-up for every stage and run.

train    with S million tokens at the first size (published: 60 to 300 billion), a third of that for each growth:
         chain        grown twice over with keys of zeros; beside it the same from the same first model with the authors' way
                      (random keys and values), with a ramp, and with the optimizer's moments kept
         scratch      the final size from the beginning: with the chain's flops, with the chain's tokens
         transformer  of the final size: likewise
         cloned       a transformer of the first size for the first stage's tokens, widened by HyperCloning, then trained on
                      until the chain's flops are spent
         small        of the first size alone, a TokenFormer and a transformer: the chain's flops
table    Markdown: perplexity of ptb.test.txt (windows of 128 that move by 64) against training flops, and for how much of
         each other's flops the chain and the rest reach the same perplexity of ptb.valid.txt, on their way, where the rate
         has not fallen yet (so a run made for it would need less).
plot     RESULTS with .svg in place of .json: perplexity of ptb.valid.txt against cumulative flops.

Runs from the beginning are tried at falling learning rates, each half of the one before, as long as that lowers the
perplexity of ptb.valid.txt; the lowest counts. First stages begin with the rate R, whose best is what goes on at that rate;
the others begin at the first stage's, those with the chain's tokens at the best rate for its flops. With --rates-of the best
of other, shorter RESULTS are taken and nothing is searched.

Flops are those of the matrix products and attention, of the forward pass and twice as many for the backward pass. Models
lie in OUT, what was measured in the file RESULTS; what is there is not done again, and interrupted runs go on where they
stopped. One thread. S = 0.4 takes about half an hour of an idle core, S = 2 two to three hours.
"""
import argparse
import html
import json
import math
import os
import sys

from experiment import Experiment, Results

WINDOW, BATCH, SIZES = 128, 8, [60, 96, 152, 240]
WAYS = {"zero keys": ["--new", "zero-keys"], "published": ["--published"], "ramp": ["--new", "ramp"],
        "zero keys, moments kept": ["--new", "zero-keys", "--optimizer", "keep"]}
STARTS = {"scratch": ("tokens", SIZES[-1]), "transformer": ("matrices", 160), "small": ("tokens", SIZES[0]),
          "small transformer": ("matrices", 80)}
ORDER = ["zero keys", "scratch, same flops", "transformer, same flops", "cloned", "scratch, same tokens", "published",
         "transformer, same tokens", "zero keys, moments kept", "ramp", "small transformer, same flops", "small, same flops"]
FLAGS = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
FLAGS.add_argument("sparsam"), FLAGS.add_argument("ptb"), FLAGS.add_argument("out"), FLAGS.add_argument("results")
FLAGS.add_argument("parts", nargs="*", default=["train", "table", "plot"])
FLAGS.add_argument("--scale", type=float, default=2, help="million tokens of the first stage")
FLAGS.add_argument("--rate", type=float, default=8e-3, help="learning rate that first stages try first")
FLAGS.add_argument("--rates-of", metavar="OTHER", help="take the best learning rates of these results")
A = FLAGS.parse_intermixed_args()
E, RESULTS, FIRST = Experiment(A.sparsam, A.ptb, A.out, threads=1), Results(A.results), A.scale * 1e6


class NotMeasured(Exception):
    """`table` and `plot` show what there is."""


def path(name):
    return E.path(name.replace(", ", "-").replace(" ", "_"))


def runs():
    return RESULTS.read().get("runs", {})


def tokenizer():
    """Byte pairs of the training text, learnt once."""
    kept = path("tokenizer")
    if not os.path.exists(os.path.join(kept, "tokenizer.json")):
        E.sparsam("train", "--preset", "nano", "--vocab", "1024", "--data", E.text("train"), "--steps", "1", "--out", kept,
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


def trained(name, how, tokens, rate):
    """Trains, or goes on: what it took, and the perplexity of unseen text on the way and at the end."""
    out, steps = path(name), max(1, round(tokens / (BATCH * WINDOW)))
    run = E.train(out, *how, "--data", E.text("train"), "--valid", E.text("valid"), "--steps", str(steps), "--batch", str(BATCH),
                  "--sequence", str(WINDOW), "--lr", f"{rate:g}", "--seed", "1", "--eval-every", str(max(1, steps // 10)),
                  "--eval-tokens", "16384", "--save-every", "100", "--keep", "1")
    with open(os.path.join(out, "metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    judged = E.sparsam("eval", out, "--data", E.text("test"), "--context", str(WINDOW), "--stride", str(WINDOW // 2))
    return {"rate": rate, "parameters": run["parameters"], "tokens": run["tokens"],
            "curve": [(line["tokens"], line["perplexity"]) for line in lines if "valid_loss" in line],
            "flops_per_token": 3 * E.sparsam("inspect", out)["flops_per_token"], "valid": run["validation"]["perplexity"],
            "test": judged["perplexity"]}


def measured(name, plan):
    """The run of that name; plan(): how its training begins, tokens and rate."""
    if name not in runs() and "train" not in A.parts:
        raise NotMeasured(name)
    return RESULTS.once(lambda: trained(name, *plan()), "runs", name)


def searched(run, kind, size, tokens, rate):
    """The best of a run at falling rates: its name and rate."""
    if A.rates_of:
        tried = {name: known for name, known in Results(A.rates_of).read()["runs"].items() if name.startswith(run + " at ")}
        rate = min(tried.values(), key=lambda known: known["valid"])["rate"]
    best = lowest = None
    while True:
        name = f"{run} at {rate:g}"
        try:
            valid = measured(name, lambda: (shape(kind, size), tokens(), rate))["valid"]
        except NotMeasured:
            if best:
                return best
            raise
        if best and valid >= lowest:
            return best
        best, lowest, rate = (name, rate), valid, rate / 2
        if A.rates_of:
            return best


def first(kind):
    return searched(f"first {kind}", kind, {"tokens": SIZES[0], "matrices": 80}[kind], lambda: FIRST, A.rate)


def grown(name, before, arguments):
    if not os.path.exists(os.path.join(path(name), "config.json")):
        E.sparsam("grow", path(before), *arguments, "--out", path(name))
    return ["--from", path(name)] + (["--optimizer", "keep"] if "keep" in arguments else [])


def chain(way):
    before, rate = first("tokens")
    names = [before]
    for size in SIZES[1:]:
        arguments = ["--to-tokens", f"attention:{size},mlp:{4 * size}", *WAYS[way]]
        name = f"{way} {size} at {rate:g}"
        measured(name, lambda: (grown("grown " + name, names[-1], arguments), FIRST / 3, rate))
        names.append(name)
    return names


def flops(names):
    known = runs()
    return sum(known[name]["tokens"] * known[name]["flops_per_token"] for name in names)


def flops_per_token(kind, size):
    """Of a model that is not trained yet."""
    name = f"shape {kind} {size}"
    if not os.path.exists(path(name)):
        E.sparsam("train", *shape(kind, size), "--data", E.text("valid"), "--steps", "1", "--batch", "1", "--out", path(name))
    return 3 * E.sparsam("inspect", path(name))["flops_per_token"]


def cloned():
    before, rate = first("matrices")
    name = f"cloned at {rate:g}"
    left = lambda: (flops(chain("zero keys")) - flops([before])) / flops_per_token("matrices", 160)
    measured(name, lambda: (grown("grown " + name, before, ["--dim", "2x"]), left(), rate))
    return [before, name]


def from_scratch(run):
    start, budget = run.split(", ")
    kind, size = STARTS[start]
    if budget == "same tokens":
        rate, tokens = runs()[from_scratch(f"{start}, same flops")[0]]["rate"], lambda: 2 * FIRST
    else:
        rate, tokens = first(kind)[1], lambda: flops(chain("zero keys")) / flops_per_token(kind, size)
    return [searched(run, kind, size, tokens, rate)[0]]


def names_of(run):
    """The stages of a run, trained if they are not."""
    return chain(run) if run in WAYS else cloned() if run == "cloned" else from_scratch(run)


def train():
    if RESULTS.once(lambda: A.scale, "scale") != A.scale:
        sys.exit(f"{A.results} was measured at another --scale")
    for run in ORDER:
        names_of(run)


def finished():
    """The stages of what is there."""
    found = {}
    for run in ORDER:
        try:
            found[run] = names_of(run)
        except NotMeasured:
            pass
    return found


def curve(names):
    """(flops, perplexity of the validation text) on the way."""
    points, spent, known = [], 0, runs()
    for run in (known[name] for name in names):
        points += [(spent + tokens * run["flops_per_token"], perplexity) for tokens, perplexity in run["curve"]]
        spent += run["tokens"] * run["flops_per_token"]
    return points


def cost(points, perplexity):
    """Flops to a perplexity, on a line between logarithms of the points around it; infinite where it is not reached."""
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if y1 <= perplexity < y0:
            return x0 + (math.log(y0 / perplexity)) / math.log(y0 / y1) * (x1 - x0)
    return math.inf


def beyond(ends, perplexity):
    """Flops to a perplexity that is not reached: on the line through the logarithms of two runs' ends."""
    (x0, y0), (x1, y1) = [(math.log(flops(names)), math.log(runs()[names[-1]]["valid"])) for names in ends]
    return math.exp(x0 + (math.log(perplexity) - y0) * (x1 - x0) / (y1 - y0))


def table():
    known, found = runs(), finished()
    print("| run | parameters | learning rate | tokens | training flops | validation | test |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for run, names in found.items():
        for i, name in enumerate(names):
            if i + 1 < len(names) and run != "zero keys":
                continue
            tokens = sum(known[n]["tokens"] for n in names[: i + 1])
            label = run if i + 1 == len(names) else f"{run}: stage {i + 1}"
            print(f"| {label} | {known[name]['parameters']:,} | {float(known[name]['rate']):g} | {tokens / 1e6:.2f} M |"
                  f" {flops(names[: i + 1]):.3g} | {known[name]['valid']:.1f} | {known[name]['test']:.1f} |")

    def part(points, perplexity, whole):
        flops_to = cost(points, perplexity)
        return "not reached" if flops_to == math.inf else f"{flops_to / whole:.0%}"

    for way in [w for w in WAYS if w in found]:
        print(f"\n| beside {way} | ends at | {way} reaches that for | reaches the end of {way} for |\n|---|---:|---:|---:|")
        for run in [r for r in found if r not in WAYS]:
            end, last = (known[found[r][-1]]["valid"] for r in (run, way))
            print(f"| {run} | {end:.1f} | {part(curve(found[way]), end, flops(found[run]))} |"
                  f" {part(curve(found[run]), last, flops(found[way]))} |")
        for start in STARTS:
            both = [found[run] for run in (f"{start}, same flops", f"{start}, same tokens") if run in found]
            if len(both) == 2 and all(cost(curve(names), last) == math.inf for names in both):
                print(f"\n{start}: {beyond(both, last) / flops(found[way]):.1f} times the flops of {way} for the end of {way}, on a"
                      " line through the ends of its two runs")


def plot():
    with open(A.results.replace(".json", ".svg"), "w") as file:
        file.write(svg({run: curve(names) for run, names in finished().items()}))


def svg(lines):
    width, height, left, bottom = 760, 460, 64, 48
    colours = ["#1b6ca8", "#d1495b", "#66a182", "#edae49", "#7d5ba6", "#2e4057", "#8d96a3", "#c06e52", "#00798c", "#9bc53d",
               "#e36bae"]
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
    for part in A.parts:
        {"train": train, "table": table, "plot": plot}[part]()
