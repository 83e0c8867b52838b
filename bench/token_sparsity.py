#!/usr/bin/python3
"""Parameter tokens and neurons that a trained model does not need: removed (shrink), skipped (sparsity), or not looked at.

    bench/token_sparsity.py SPARSAM PTB OUT [train|shrink|sparsity|blocks|keys|speed|planted|table ...]  (all unless named)

train     two models of 4.7 M parameters on PTB/ptb.train.txt, alike but for parameter tokens (256 for each of q, k, v and o,
          1024 for the MLP) in the one and matrices and SiLU MLPs in the other. Interrupted runs go on where they stopped.
shrink    of each model the frontier of sparsam shrink, scored on 32,768 tokens of ptb.train.txt and judged on 8,192 of
          ptb.test.txt, by each score and allocation.
sparsity  of the model of tokens PPL-1, 5 and 10 % on the same 8,192 tokens, thresholds from 4,096 training tokens: by value
          tokens that are skipped, and by inputs of the keys.
blocks    of the same model perplexity where 12.5 to 75 % of blocks of 4, 8 and 16 tokens are read, keys and values, beside
          value tokens alone at PPL-1 to 100 %; and of a model with many times more tokens than channels (96 channels,
          768 tokens in each of q, k, v and o, 3072 in the MLP, 400 steps), which is trained first.
keys      what choosing among the keys could give (below), in numpy on the same two models.
planted   decoding of the published shapes of 124 M, 354 M and 1.3 G parameters, random and in bf16, where 12.5, 25 and 50 %
          of blocks of 16 tokens are read, keys and values, and where as many values are read: on a quiet machine.
speed     decoding of the test text, with and without what is skipped, in one run: on a quiet machine.
table     prints what was measured as Markdown.

The norm of all scores is known without them from the Gram matrix of the keys, |K x|^2 = x^T (K^T K) x, so that keys could be
left unread if it were known which. `keys` sorts the tokens of each projection into blocks, of 16 and of 64, by k-means of
their keys, chooses blocks by the product of x with each block's mean key, and reports for a number of blocks how much of
the output of the exact top tokens is found: mean |o - o_chosen|^2 / |o|^2, beside the same for the tokens that an oracle
chooses by |s| |V|, as many in number. Inputs are those of 1,000 test tokens. With a line in place of what is not read,
gelu(z) = offset + slope z, whose sum is two products with matrices that are made once (K^T V, and the sum of V), the error is
that of the second half of those tokens, the line (two numbers a projection) the best of the first half.

Results lie in OUT as JSON; what is there is not done again: remove a file to repeat it.
"""
import json
import os
import subprocess
import sys

from experiment import Experiment, interrupted, kept

STEPS, BATCH, LENGTH = 600, 16, 128
SHAPE = ["--vocab", "2048", "--context", "128", "--layers", "4", "--dim", "256", "--heads", "8"]
MODELS = {
    "tokens": ["--preset", "tokenformer-nano", *SHAPE, "--attention-tokens", "256", "--mlp-tokens", "1024"],
    "silu": ["--preset", "micro", *SHAPE, "--kv-heads", "8", "--hidden", "1024"],
}
SHRINKING = {"peak": [], "square": ["--score", "mean-square"], "global": ["--allocation", "global"]}
SKIPPING = {"values": [], "inputs": ["--inputs", "--allocation", "uniform"]}
WIDE = ["--preset", "tokenformer-nano", "--vocab", "2048", "--context", "128", "--layers", "4", "--dim", "96", "--heads", "3",
        "--attention-tokens", "768", "--mlp-tokens", "3072"]
READ = "12.5,25,50,75"
KEEP = "95%,90%,75%,50%,25%"
WINDOWS = ["--context", "128", "--stride", "112"]
E = Experiment(*sys.argv[1:4])


def train_one(name, shape, steps=STEPS):
    how = ["--resume"] if interrupted(E.path(name)) else [
        *shape, "--data", E.text("train"), "--valid", E.text("valid"), "--steps", str(steps), "--batch", str(BATCH),
        "--sequence", str(LENGTH), "--lr", "2e-3", "--seed", "1", "--eval-every", "200", "--save-every", "100",
        "--keep", "1"]
    E.run(name + ".train", "train", "--out", E.path(name), "--threads", "1", *how)


def train():
    for name, shape in MODELS.items():
        train_one(name, shape)


def judged(*more):
    return ["--calibrate", E.text("train"), "--data", E.beginning("test", 100_000), *WINDOWS, *more]


def shrink():
    for name in MODELS:
        for kind, how in SHRINKING.items():
            E.run(f"{name}.shrink.{kind}", "shrink", E.path(name),
                  *judged("--calibration-tokens", "32768", "--held-out-tokens", "8192", "--keep", KEEP, *how, "--decode", "0"))
        E.run(f"{name}.shrink.ppl", "shrink", E.path(name),
              *judged("--calibration-tokens", "32768", "--held-out-tokens", "8192", "--ppl", "1,5,10", "--decode", "0"))


def sparsity():
    for kind, how in SKIPPING.items():
        E.run("tokens." + kind, "sparsity", E.path("tokens"),
              *judged("--tokens", "4096", "--held-out-tokens", "8192", "--ppl", "1,5,10", "--store", "5", "--out", E.path(kind), *how))


def blocks():
    train_one("wide", WIDE, 400)
    for name, sizes in dict(tokens=(4, 8, 16), wide=(8, 16)).items():
        for size in sizes:
            E.run(f"{name}.blocks.{size}", "sparsity", E.path(name),
                  *judged("--held-out-tokens", "8192", "--key-blocks", str(size), "--read", READ))
        E.run(name + ".values.curve", "sparsity", E.path(name),
              *judged("--tokens", "4096", "--held-out-tokens", "8192", "--ppl", "1,5,10,25,50,100"))


def planted():
    for size in ("124m", "354m", "1.4b"):
        for kind, how in dict(blocks=["--key-blocks", "16"], values=[]).items():
            E.run(f"planted.{size}.{kind}", "bench", "--random", "tokenformer-" + size, "--sparse", "0.125,0.25,0.5", *how,
                  "-n", "16", "-r", "2", "--threads", "1")


def speed():
    for kind in SKIPPING:
        E.run(kind + ".speed", "bench", E.path(kind), "--data", E.beginning("test", 100_000), "-n", "128", "-r", "5", "--precision",
              "f32", "--threads", "1")
    for name in MODELS:
        E.run(name + ".shrink.speed", "shrink", E.path(name),
              *judged("--calibration-tokens", "2048", "--held-out-tokens", "512", "--keep", KEEP, "--decode", "128", "--threads",
                      "1"))


def keys():
    for name in ("tokens", "wide"):
        kept(E.path(name + ".keys.json"), lambda: choosing_keys(name))


def choosing_keys(model):
    import numpy as np

    def weights(directory):
        with open(os.path.join(directory, "model.safetensors"), "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            data = file.read()
        result = {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                assert entry["dtype"] == "F32", "expected weights in f32"
                result[name] = np.frombuffer(data[begin:end], np.float32).reshape(entry["shape"]).astype(np.float64)
        return result

    def erf(x):  # Abramowitz and Stegun 7.1.26: 1.5e-7
        t = 1 / (1 + 0.3275911 * np.abs(x))
        poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
        return np.sign(x) * (1 - poly * np.exp(-x * x))

    def norm(x):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)

    w, config = weights(E.path(model)), json.load(open(E.path(model, "config.json")))
    with open(E.beginning("test", 100_000)) as file:
        output = subprocess.run([E.program, "tokenize", E.path(model), "--json", "--no-special"], stdin=file,
                                stdout=subprocess.PIPE, check=True).stdout
    ids = np.array(json.loads(output)["ids"][:1024]).reshape(8, 128)
    layers = config["sparsam"]["layers"]
    heads = layers[0]["attention"]["heads"]
    turned = config["sparsam"]["rotary"]["channels"]
    inputs = []  # (name, tau, x, K, V)

    def pattention(name, tau, x):
        K, V = w[name + ".keys"], w[name + ".values"].T
        inputs.append((name, tau, x.reshape(-1, x.shape[-1]), K, V))
        return scores(tau, x, K) @ V

    def scores(tau, x, K):
        a = x @ K.T
        z = tau * a / (np.sqrt((a * a).sum(-1, keepdims=True)) + 1e-8)
        return z * 0.5 * (1 + erf(z / np.sqrt(2)))

    def rotate(x):  # (B, T, H, D)
        frequency = 10000.0 ** (-np.arange(0, turned, 2) / turned)
        angle = np.arange(x.shape[1])[:, None, None] * frequency
        half = turned // 2
        a, b, rest = x[..., :half], x[..., half:turned], x[..., turned:]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle), rest], -1)

    B, T = ids.shape
    x = w["model.embed_tokens.weight"][ids]
    for l, layer in enumerate(layers):
        at, n = f"model.layers.{l}.", norm(x)
        q, k, v = (pattention(f"{at}self_attn.{p}_proj", layer["attention"][p]["tau"], n).reshape(B, T, heads, -1) for p in "qkv")
        q, k = rotate(q), rotate(k)
        logits = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
        logits = np.where(np.tril(np.ones((T, T), bool)), logits, -np.inf)
        p = np.exp(logits - logits.max(-1, keepdims=True))
        mixed = np.einsum("bhts,bshd->bthd", p / p.sum(-1, keepdims=True), v).reshape(B, T, -1)
        x = x + pattention(f"{at}self_attn.o_proj", layer["attention"]["o"]["tau"], mixed)
        x = x + pattention(f"{at}mlp", layer["mlp"]["tau"], norm(x))

    logits = norm(x) * w["model.norm.weight"] + w["model.norm.bias"]
    logits = (logits @ w["model.embed_tokens.weight"].T)[:, :-1]
    losses = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1) \
        - np.take_along_axis(logits, ids[:, 1:, None], 2)[..., 0]
    print(f"perplexity of the {losses.size} predictions {np.exp(losses.mean()):.2f}", file=sys.stderr)

    def blocks_of(K, size, rng):
        """Balanced k-means of the keys' directions: each centre takes its `size` best in turn."""
        unit = K / np.linalg.norm(K, axis=1, keepdims=True)
        count = len(K) // size
        centres = unit[rng.choice(len(K), count, replace=False)]
        for _ in range(15):
            block, room = np.full(len(K), -1), np.full(count, size)
            similar = unit @ centres.T
            for index in np.argsort(-similar.max(1)):
                for c in np.argsort(-similar[index]):
                    if room[c]:
                        block[index], room[c] = c, room[c] - 1
                        break
            centres = np.stack([unit[block == c].mean(0) for c in range(count)])
        return block, np.stack([K[block == c].mean(0) for c in range(count)])

    rows = []
    for size in (16, 64):
        for part in (0.125, 0.25, 0.5):
            if part * min(len(K) for *_, K, _ in inputs) < size:
                continue  # not one block of the smallest
            errors, oracle, perfect, with_line = [], [], [], []
            for name, tau, x, K, V in inputs:
                s = scores(tau, x, K)
                o = s @ V
                block, mean = blocks_of(K, size, np.random.default_rng(1))
                chosen = round(part * len(mean))
                lengths = np.abs(s) * np.linalg.norm(V, axis=1)

                def error(keep):
                    return ((o - np.where(keep, s, 0) @ V) ** 2).sum(1).mean() / (o**2).sum(1).mean()

                def of_blocks(value):  # (N, blocks)
                    taken = np.zeros_like(value, bool)
                    np.put_along_axis(taken, np.argsort(-value, 1)[:, :chosen], True, 1)
                    return taken[:, block]

                def error_with_line(keep):
                    a = x @ K.T
                    z = tau * a / np.sqrt((a * a).sum(1, keepdims=True))
                    half = len(z) // 2
                    unread = ~keep[:half]
                    slope, offset = np.polyfit(z[:half][unread], s[:half][unread], 1)
                    rest = np.where(keep, 0, s - offset - slope * z)[half:] @ V
                    return (rest**2).sum(1).mean() / (o[half:] ** 2).sum(1).mean()

                chosen_by_mean = of_blocks(x @ mean.T)
                errors.append(error(chosen_by_mean))
                with_line.append(error_with_line(chosen_by_mean))
                best = np.stack([(lengths**2)[:, block == c].sum(1) for c in range(len(mean))], 1)
                perfect.append(error(of_blocks(best)))
                few = np.zeros_like(s, bool)
                np.put_along_axis(few, np.argsort(-lengths, 1)[:, : chosen * size], True, 1)
                oracle.append(error(few))
            rows.append(dict(block=size, part=part, by_mean_key=float(np.mean(errors)), best_blocks=float(np.mean(perfect)),
                             best_tokens=float(np.mean(oracle)), with_line=float(np.mean(with_line))))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def load(name):
    with open(E.path(name + ".json")) as file:
        return json.load(file)


def table():
    print("| model | kept | parameters | MFLOP | perplexity | by mean square | global | speed-up |\n"
          "|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in MODELS:
        peak, square, other = (load(f"{name}.shrink.{kind}")["frontier"] for kind in SHRINKING)
        timed = load(name + ".shrink.speed")["frontier"] if os.path.exists(E.path(name + ".shrink.speed.json")) else peak
        for p, s, g, t in zip(peak, square, other, timed):
            print(f"| {name} | {p['asked']} | {p['parameters'] / 1e6:.2f} M | {p['mflops_per_token']:.2f} | {p['perplexity']:.2f} "
                  f"| {s['perplexity']:.2f} | {g['perplexity']:.2f} | {t.get('speedup', 0):.2f} |")
    for name in MODELS:
        for p in load(name + ".shrink.ppl")["frontier"]:
            print(f"{name} {p['asked']}: {100 * p['fraction']:.1f} % kept, perplexity {p['perplexity']:.2f}")
    values, inputs = load("tokens.values"), load("tokens.inputs")
    print("\n| | values left out | perplexity | bytes of tokens read | inputs left out | perplexity |\n|---|---:|---:|---:|---:|---:|")
    for v, i in zip(values["ppl"], inputs["inputs"]):
        print(f"| PPL-{v['percent']:g} % | {100 * v['sparsity']:.1f} % | {v['perplexity']:.2f} | {100 * v['token_bytes']:.1f} % "
              f"| {100 * i['left_out']:.1f} % | {i['perplexity']:.2f} |")
    for kind in SKIPPING:
        if os.path.exists(E.path(kind + ".speed.json")):
            print(f"{kind} at PPL-5 %: {load(kind + '.speed')['speedup']:.2f}x")
    print("\n| model | blocks of | part read | error, by mean key | best blocks | best tokens | by mean key, with a line |\n"
          "|---|---:|---:|---:|---:|---:|---:|")
    for model, row in [(model, row) for model in ("tokens", "wide") for row in load(model + ".keys")]:
        print(f"| {model} | {row['block']} | {row['part']:.3f} | {row['by_mean_key']:.3f} | {row['best_blocks']:.3f} "
              f"| {row['best_tokens']:.3f} | {row['with_line']:.3f} |")
    print("\n| model | read | bytes of tokens | perplexity | rise |\n|---|---:|---:|---:|---:|")
    for name, sizes in dict(tokens=(4, 8, 16), wide=(8, 16)).items():
        for size in sizes:
            measured = load(f"{name}.blocks.{size}")
            for p in measured["blocks"]:
                print(f"| {name} | {p['read_percent']:g} % of blocks of {size} | {100 * p['token_bytes']:.1f} % "
                      f"| {p['perplexity']:.2f} | {100 * (p['perplexity'] / measured['dense_perplexity'] - 1):.1f} % |")
        measured = load(name + ".values.curve")
        for p in measured["ppl"]:
            print(f"| {name} | all keys, {100 - 100 * p['sparsity']:.1f} % of the values | {100 * p['token_bytes']:.1f} % "
                  f"| {p['perplexity']:.2f} | {100 * (p['perplexity'] / measured['dense_perplexity'] - 1):.1f} % |")
    print("\n| shape | read | blocks | bound | values alone | bound |\n|---|---:|---:|---:|---:|---:|")
    for size in ("124m", "354m", "1.4b"):
        if os.path.exists(E.path(f"planted.{size}.values.json")):
            for b, v in zip(load(f"planted.{size}.blocks")["sparse"], load(f"planted.{size}.values")["sparse"]):
                print(f"| {size} | {100 * b['planted']:g} % | {b['speedup']:.2f}x | {b['bound']:.2f}x | {v['speedup']:.2f}x "
                      f"| {v['bound']:.2f}x |")


def main():
    parts = dict(train=train, shrink=shrink, sparsity=sparsity, blocks=blocks, keys=keys, speed=speed, planted=planted,
                 table=table)
    for part in sys.argv[4:] or parts:
        parts[part]()


if __name__ == "__main__":
    main()
