#!/usr/bin/python3
"""Runs what sparsam writes in llama.cpp and compares: logits, greedy text, token ids, perplexity.

    tools/check_llama_cpp.py build/release/sparsam [--data DATA]

The environment's NODE_LLAMA_CPP names the node_modules folder that holds node-llama-cpp (see llama_cpp.py); without it the
check is skipped (exit code 77). Expected logits come from PyTorch: those under tests/data/golden, and torch_model.py for
models that are trained, or made thinner, on the way. DATA is the folder of real weights and texts; without it those
parts are left out. Differences of logits are given relative to the largest logit.
"""
import argparse
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "tests", "data", "golden")
ROUNDING = 2e-5  # of f32 through a few layers
TABLES = 2e-3  # llama.cpp looks GELU up in a table of f16
PERPLEXITY = 1e-3

# Goldens that GGUF can express, with the bound of their logits.
EXPRESSIBLE = {
    "llama_gqa": ROUNDING, "architectures/llama2": ROUNDING, "architectures/llama3": ROUNDING,
    "architectures/llama_biases": ROUNDING, "architectures/smollm": ROUNDING, "architectures/qwen3": ROUNDING,
    "gpt2": TABLES, "architectures/gpt2": TABLES, "architectures/gemma": TABLES,
}


class Checks:
    def __init__(self, binary, package, folder):
        self.binary, self.package, self.folder, self.failed = binary, package, folder, 0

    def run(self, *arguments, **options):
        done = subprocess.run([self.binary, *arguments], capture_output=True, timeout=300, **options)
        if done.returncode != 0:
            sys.exit(f"sparsam {' '.join(arguments)}: {done.stderr.decode()}")
        return done.stdout

    def report(self, what, value, bound):
        good = value <= bound
        self.failed += not good
        print(f"{'ok    ' if good else 'FAILED'}  {what}: {value:.2e} (bound {bound:.0e})", flush=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def peer(self, path, positions):
        return llama_cpp.Peer(self.package, path, positions, False)

    def logits(self, what, gguf, tokens, expected, bound):
        found = self.peer(gguf, len(tokens)).forward([int(t) for t in tokens])
        expected = numpy.asarray(expected).reshape(found.shape)
        self.report(f"{what}: logits", abs(found - expected).max() / abs(expected).max(), bound)

    def golden(self, name, bound):
        directory = os.path.join(GOLDEN, name)
        file = os.path.join(directory, "expected.safetensors")
        golden = torch_model.read_safetensors(file if os.path.exists(file) else os.path.join(directory, "golden.safetensors"))
        gguf = self.path("golden.gguf")
        self.run("convert", "-q", directory, gguf, "--type", "f32")  # 16-bit weights: llama.cpp rounds activations too
        logits = golden["logits"]
        first = logits if logits.dim() == 2 else logits[0]
        self.logits(name, gguf, golden["tokens"].reshape(-1)[: first.shape[0]], first, bound)

    def against_torch(self, what, directory, gguf, bound):
        """Both hold the same model: PyTorch computes one, llama.cpp the other."""
        with open(os.path.join(directory, "config.json")) as file:
            config = json.load(file)
        tokens = torch.tensor([(37 * i + 11) % config["vocab_size"] for i in range(48)])
        with torch.no_grad():
            if config["model_type"] in ("gpt2", "qwen2"):
                families.C, families.V = config.get("n_embd", config.get("hidden_size")), config["vocab_size"]
                parameters = families.Parameters(torch.float64)
                parameters.tensors = torch_model.read_safetensors(os.path.join(directory, "model.safetensors"))
                expected = getattr(families, config["model_type"])(config, parameters, tokens)
            else:
                expected = torch_model.load(directory).double()(tokens[None])[0]
        self.logits(what, gguf, tokens, expected.numpy(), bound)

    def perplexity(self, what, gguf, text, context, bound=PERPLEXITY):
        peer = self.peer(gguf, context)
        with open(text, "rb") as file:
            theirs = llama_cpp.perplexity(peer, peer.tokenize(file.read()), context)
        ours = json.loads(self.run("eval", "-q", "--json", gguf, "--data", text, "--protocol", "llama.cpp", "--context",
                                   str(context), "--precision", "f32"))
        if theirs["tokens"] != ours["tokens"]:
            sys.exit(f"{what}: llama.cpp scores {theirs['tokens']} tokens, sparsam {ours['tokens']}")
        self.report(f"{what}: perplexity {ours['perplexity']:.4f}, llama.cpp's {theirs['perplexity']:.4f}",
                    abs(ours["perplexity"] / theirs["perplexity"] - 1), bound)

    def quantised(self, what, directory, kind, text, context):
        """llama.cpp also rounds activations for quantised weights; the same numbers as f32 show the weights alone."""
        gguf, wide = self.path(f"{kind}.gguf"), self.path(f"{kind}-f32.gguf")
        self.run("convert", "-q", directory, gguf, "--type", kind)
        self.run("convert", "-q", gguf, wide, "--type", "f32")
        self.perplexity(f"{what} {kind}, dequantised", wide, text, context)
        self.perplexity(f"{what} {kind}, activations rounded there", gguf, text, context, 5 * PERPLEXITY)

    def tokens(self, what, gguf, text):
        with open(text, "rb") as file:
            data = file.read()
        ours = [int(i) for i in self.run("tokenize", gguf, input=data).split()]
        theirs = self.peer(gguf, 64).tokenize(data)
        self.report(f"{what}: differing token ids of {len(theirs)}",
                    0 if ours == theirs else sum(a != b for a, b in zip(ours, theirs)) + abs(len(ours) - len(theirs)), 0)

    def trained(self, what, text, bound, *shape):
        directory, gguf = self.path(what), self.path(what + ".gguf")
        self.run("train", "-q", "--out", directory, "--data", text, "--vocab", "512", "--context", "64", "--layers", "2",
                 "--dim", "256", "--heads", "4", "--steps", "12", "--batch", "8", "--sequence", "64", *shape)
        self.run("convert", "-q", directory, gguf)
        self.against_torch(what, directory, gguf, bound)
        self.tokens(what, gguf, text)
        self.perplexity(what, gguf, text, 64)
        for kind in ("q8_0", "q4_0", "q4_k_m", "q6_k"):
            self.quantised(what, directory, kind, text, 64)

    def stories(self, directory, text):
        prompt = "Once upon a time"
        for kind in ("f32", "f16", "q8_0"):
            gguf = self.path(kind + ".gguf")
            self.run("convert", "-q", directory, gguf, "--type", kind)
            ours = self.run("generate", "-q", gguf, "--prompt", prompt, "-n", "60", "--temperature", "0").decode().strip()
            peer = self.peer(gguf, 128)
            ids = peer.tokenize(prompt)
            theirs = peer.detokenize(ids[1:] + llama_cpp.greedy(peer, ids, 60)).strip()
            self.report(f"stories260K {kind}: greedy text differs", int(ours != theirs), 0)
        self.perplexity("stories260K f32", self.path("f32.gguf"), text, 128)
        self.perplexity("stories260K f16", self.path("f16.gguf"), text, 128)
        self.quantised("stories260K", directory, "q8_0", text, 128)
        self.tokens("stories260K", self.path("f32.gguf"), text)
        for drops in ("attn:1", "mlp:2", "attn:0,mlp:3,block:2", "block:1"):
            thin, gguf = self.path("thin"), self.path("thin.gguf")
            self.run("drop", "-q", directory, "--list", drops, "--out", thin)
            self.run("drop", "-q", directory, "--list", drops, "--out", gguf)
            self.against_torch(f"stories260K without {drops}", thin, gguf, ROUNDING)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--data", default="")
    flags = parser.parse_args()
    package = os.environ.get("NODE_LLAMA_CPP")
    if not package:
        print("skipped: NODE_LLAMA_CPP does not say where node-llama-cpp is")
        sys.exit(77)
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    global families, json, llama_cpp, numpy, torch, torch_model
    import json
    import llama_cpp
    import numpy
    import torch
    import torch_model
    import write_architecture_goldens as families
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(flags.binary, package, folder)
        for name, bound in EXPRESSIBLE.items():
            checks.golden(name, bound)
        text = os.path.join(folder, "text.txt")
        with open(text, "wb") as file:
            file.write(checks.run("corpus", "--tokens", "8000"))
        checks.trained("qwen2-like", text, ROUNDING, "--preset", "nano", "--qkv-bias", "--kv-heads", "2", "--hidden", "256")
        checks.trained("gpt2-like", text, TABLES, "--preset", "gpt2")
        stories = os.path.join(flags.data, "weights", "derived", "stories260K")
        if os.path.exists(stories):
            with open(os.path.join(flags.data, "text", "english", "tinystories_sample.txt"), "rb") as source:
                data = source.read(40000)
            with open(text, "wb") as file:
                file.write(data[: data.rfind(b"\n")])
            checks.stories(stories, text)
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
