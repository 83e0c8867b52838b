#!/usr/bin/python3
"""Redundant attention replaced instead of dropped: a softmax model, some of whose layers become attention at constant
cost, beside the same model without the attention of the same layers.

    bench/linearize.py SPARSAM PTB OUT RESULTS [train|replace|control|table ...]        (all unless named)

train    a softmax model of 8 layers (96 channels, 3 heads, vocabulary 1,024, 1.0 M parameters) on PTB/ptb.train.txt:
         432 steps of 16 windows of 256 tokens, one pass.
replace  for 25, 50 and 75 % of the layers, those that score lowest: `linearize` (fit on ptb.train.txt), `drop` of the
         same layers' attention, both healed alike, by distillation from the whole model and by the text alone: 60
         steps. Perplexity of the first 100 kB of ptb.test.txt, which nothing of this has seen, in windows of 256 tokens
         that move by 128.
control  what the window alone would do: the replaced models, without fit or training anew, with a share of the state of 0.
table    prints what was measured as Markdown.

Models lie in OUT, what was measured in the file RESULTS; what is there is not done again.
"""
import json
import os
import shutil
import struct
import sys

from experiment import Experiment, Results

STEPS, HEAL_STEPS, FIT_TOKENS, PERCENTS = 432, 60, 80_000, [25, 50, 75]
WAYS = {  # how layers are replaced
    "state and window 16": ["--window", "16"],
    "state alone, decay": ["--window", "0", "--decay"],
}
PERCENTS_OF = {"state alone, decay": [25]}  # where not all
E, RESULTS = Experiment(*sys.argv[1:4], threads=1), Results(sys.argv[4])


def path(*names):
    return E.path("-".join(str(n) for n in names).replace(" ", "_").replace(",", ""))


def once(name, measure):
    return RESULTS.once(measure, name)


def perplexity(model):
    return E.sparsam("eval", model, "--data", E.beginning("test", 100_000), "--context", "256", "--stride", "128")["perplexity"]


def trained(out, *how):
    E.train(out, *how, "--data", E.text("train"), "--valid", E.text("valid"), "--sequence", "256", "--batch", "16", "--seed",
            "1", "--eval-every", "100000", "--eval-tokens", "20000", "--save-every", "100", "--keep", "1")
    return out


def train():
    def measure():
        trained(path("model"), "--preset", "nano", "--vocab", "1024", "--layers", "8", "--dim", "96", "--heads", "3",
                "--hidden", "256", "--context", "256", "--steps", str(STEPS), "--lr", "3e-3")
        return {"perplexity": perplexity(path("model"))}

    once("model", measure)
    once("model, healed", lambda: {"perplexity": heal(path("model"))})


def heal(model, *teacher):
    healed = trained(model + ("-distilled" if teacher else "-healed"), "--from", model, *teacher, "--steps",
                     str(HEAL_STEPS), "--lr", "1e-3")
    return perplexity(healed)


def judged(name, model, make):
    def measure():
        if not os.path.exists(os.path.join(model, "config.json")):
            make(model)
        return {"replaced": perplexity(model), **(manifest(model))}

    once(name, measure)
    once(name + ", distilled", lambda: {"perplexity": heal(model, "--teacher", path("model"))})
    once(name + ", healed", lambda: {"perplexity": heal(model)})


def manifest(model):
    with open(os.path.join(model, "sparsam.json")) as file:
        return {"replaced_layers": json.load(file).get("replaced", [])}


def replace():
    scores = E.run("scores", "score", path("model"), "--data", E.text("valid"), "--tokens", "16384")
    attention = [s for s in scores["sublayers"] if s["kind"] == "attention"]
    order = [str(s["layer"]) for s in sorted(attention, key=lambda s: s["score"])]
    for percent in PERCENTS:
        layers = sorted(order[:len(order) * percent // 100], key=int)
        judged(f"drop {percent}", path("drop", percent), lambda out: E.sparsam(
            "drop", path("model"), "--list", ",".join("attn:" + l for l in layers), "--out", out))
        for way, how in WAYS.items():
            if percent not in PERCENTS_OF.get(way, PERCENTS):
                continue
            judged(f"{way} {percent}", path(way, percent), lambda out: E.sparsam(
                "linearize", path("model"), "--layers", ",".join(layers), *how, "--data", E.text("train"), "--sequence",
                "256", "--fit-tokens", str(FIT_TOKENS), "--out", out))


def without_state(model):
    """A copy of the model whose states have no share."""
    out = model + "-window"
    os.makedirs(out, exist_ok=True)
    for name in ["config.json", "tokenizer.json"]:
        shutil.copy(os.path.join(model, name), out)
    with open(os.path.join(model, "model.safetensors"), "rb") as file:
        data = bytearray(file.read())
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for name, tensor in json.loads(data[8:header]).items():
        if name.endswith("state_logit"):
            begin, end = (header + offset for offset in tensor["data_offsets"])
            data[begin:end] = struct.pack("<f", -60.0) * ((end - begin) // 4)
    with open(os.path.join(out, "model.safetensors"), "wb") as file:
        file.write(data)
    return out


def control():
    for percent in PERCENTS:
        name = f"state and window 16 {percent}"
        once(f"{name}, window alone", lambda: {"perplexity": perplexity(
            without_state(path("state and window 16", percent)))})


def table():
    results = RESULTS.read()
    print(f"softmax in all layers: {results['model']['perplexity']:.2f}, trained on as the others are:"
          f" {results['model, healed']['perplexity']:.2f}\n")
    print("| layers | instead of softmax attention | at once | its window alone | healed by the text | by distillation |")
    print("|---:|---|---:|---:|---:|---:|")
    for percent in PERCENTS:
        for way in ["drop", *WAYS]:
            name = f"{way} {percent}"
            if name in results:
                cells = [results[name]["replaced"]] + [
                    results.get(f"{name}, {how}", {}).get("perplexity") for how in ["window alone", "healed", "distilled"]]
                print(f"| {percent} % | {'nothing: dropped' if way == 'drop' else way} | "
                      + " | ".join("" if c is None else f"{c:.2f}" for c in cells) + " |")


if __name__ == "__main__":
    for part in sys.argv[5:] or ["train", "replace", "control", "table"]:
        {"train": train, "replace": replace, "control": control, "table": table}[part]()
