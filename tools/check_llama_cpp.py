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
import re
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "tests", "data", "golden")
ROUNDING = 2e-5  # of f32 through a few layers
TABLES = 2e-3  # llama.cpp looks GELU up in a table of f16
PERPLEXITY = 1e-3
NARROW = 2e-3  # of a model 64 wide: the errors of its rounded activations average over few numbers
ROUNDED = 1e-4  # where both round activations

# Goldens that GGUF can express, with the bound of their logits.
EXPRESSIBLE = {
    "llama_gqa": ROUNDING, "architectures/llama2": ROUNDING, "architectures/llama3": ROUNDING,
    "architectures/llama_biases": ROUNDING, "architectures/smollm": ROUNDING, "architectures/qwen3": ROUNDING,
    "gpt2": TABLES, "architectures/gpt2": TABLES, "architectures/gemma": TABLES,
}


def rounded(x, kind):
    """x as ggml's product of weights of this type reads it (quantize_row_q8_0, quantize_row_q8_1, quantize_row_q8_K)."""
    if kind in ("f32", "f16", "bf16"):
        return {"f32": x, "f16": x.half(), "bf16": x.bfloat16()}[kind].float()
    if kind.endswith("k"):
        blocks = x.reshape(-1, 256)
        largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
        inverse = torch.where(largest == 0, largest, -127 / largest)
        steps = (blocks * inverse).round().clamp(max=127)
        return torch.where(inverse == 0, steps, steps / inverse).reshape(x.shape)
    blocks = x.reshape(-1, 32)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    steps = torch.where(scale == 0, scale, blocks / scale).round()
    return (steps * scale.half().float()).reshape(x.shape)


def write_gguf(path, architecture, metadata, tensors):
    """A file with f32 tensors and no vocabulary, for the architectures that sparsam reads and does not write."""
    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    def value(item):
        kind, form = {bool: (7, "<?"), int: (4, "<I"), float: (6, "<f"), str: (8, None)}[type(item)]
        return struct.pack("<I", kind) + (text(item) if form is None else struct.pack(form, item))

    fields = {"general.architecture": architecture, "tokenizer.ggml.model": "none",
              **{f"{architecture}.{key}": item for key, item in metadata.items()}}
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    header += b"".join(text(key) + value(item) for key, item in fields.items())
    data = b""
    for name, tensor in tensors.items():
        shape = list(tensor.shape)[::-1]
        header += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        raw = tensor.float().contiguous().numpy().tobytes()
        data += raw + b"\0" * (-len(raw) % 32)
    with open(path, "wb") as file:
        file.write(header + b"\0" * (-len(header) % 32) + data)


# Their names in GGUF, after the layer's own prefix and before ".weight" and ".bias".
PHI3 = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.qkv_proj": "attn_qkv",
        "self_attn.o_proj": "attn_output", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
NEOX = {"gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm", "embed_out": "output",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "attention.query_key_value": "attn_qkv",
        "attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down"}


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

    def golden(self, name, bound, grow=()):
        """The logits that PyTorch gave, also of the model that was grown by these options."""
        directory = os.path.join(GOLDEN, name)
        file = os.path.join(directory, "expected.safetensors")
        golden = torch_model.read_safetensors(file if os.path.exists(file) else os.path.join(directory, "golden.safetensors"))
        gguf = self.path("golden.gguf")
        if grow:
            directory = self.path("grown")
            self.run("grow", "-q", os.path.join(GOLDEN, name), *grow, "--out", directory)
        self.run("convert", "-q", directory, gguf, "--type", "f32")  # 16-bit weights: llama.cpp rounds activations too
        logits = golden["logits"]
        first = logits if logits.dim() == 2 else logits[0]
        self.logits(" ".join([name, *grow]), gguf, golden["tokens"].reshape(-1)[: first.shape[0]], first, bound)

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

    def foreign(self, what, family, architecture, config, metadata, names, bound):
        """A random model of a family that sparsam reads as GGUF: llama.cpp and what sparsam makes of the file, as f32
        tensors, against the family's definition in PyTorch."""
        torch.manual_seed(5)
        parameters = families.Parameters(torch.float32)
        tokens = torch.tensor([(37 * i + 11) % families.V for i in range(48)])
        expected = getattr(families, family)(config, parameters, tokens)
        tensors, heads = {}, config["num_attention_heads"]
        for name, tensor in parameters.tensors.items():
            at, kind = name.rsplit(".", 1)
            layer = re.match(r"(?:model|gpt_neox)\.layers\.(\d+)\.(.*)", at)
            prefix, at = (f"blk.{layer[1]}.", layer[2]) if layer else ("", at)
            if at == "attention.query_key_value":  # head by head there, queries before keys before values here
                tensor = tensor.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
            tensors[f"{prefix}{names[at]}.{kind}"] = tensor
        gguf, directory = self.path("foreign.gguf"), self.path("foreign")
        write_gguf(gguf, architecture, metadata, tensors)
        self.logits(f"{what} in llama.cpp", gguf, tokens, expected.numpy(), bound)
        self.run("convert", "-q", gguf, directory, "--type", "f32")
        with torch.no_grad():
            found = torch_model.load(directory).double()(tokens[None])[0]
        self.report(f"{what} as sparsam reads it: logits", float((found - expected).abs().max() / expected.abs().max()), ROUNDING)

    def perplexity(self, what, gguf, text, context, bound=PERPLEXITY, model=None):
        """sparsam's on the file beside llama.cpp's; `model`, where given, computes the logits instead of sparsam."""
        peer = self.peer(gguf, context)
        with open(text, "rb") as file:
            tokens = peer.tokenize(file.read())
        theirs = llama_cpp.perplexity(peer, tokens, context)
        if model:
            ours = llama_cpp.perplexity(peer, tokens, context, model)
        else:
            ours = json.loads(self.run("eval", "-q", "--json", gguf, "--data", text, "--protocol", "llama.cpp", "--context",
                                       str(context), "--precision", "f32"))
        if theirs["tokens"] != ours["tokens"]:
            sys.exit(f"{what}: llama.cpp scores {theirs['tokens']} tokens, sparsam {ours['tokens']}")
        self.report(f"{what}: perplexity {ours['perplexity']:.4f} of {ours['tokens']} tokens, llama.cpp's "
                    f"{theirs['perplexity']:.4f}", abs(ours["perplexity"] / theirs["perplexity"] - 1), bound)

    def quantised(self, what, directory, kind, text, context, bound=PERPLEXITY):
        """llama.cpp also rounds activations for quantised weights; the same numbers as f32 show the weights alone."""
        gguf, wide = self.path(f"{kind}.gguf"), self.path(f"{kind}-f32.gguf")
        self.run("convert", "-q", directory, gguf, "--type", kind)
        self.run("convert", "-q", gguf, wide, "--type", "f32")
        self.perplexity(f"{what} {kind}, dequantised", wide, text, context)
        self.perplexity(f"{what} {kind}, activations rounded there", gguf, text, context, bound)
        return gguf

    def rounding_model(self, gguf, directory):
        """The file's weights in PyTorch, with the inputs of each product rounded as llama.cpp rounds them."""
        self.run("convert", "-q", gguf, directory, "--type", "f32")
        types = {}
        for tensor in json.loads(self.run("inspect", "--tensors", "--json", gguf))["tensor_list"]:
            types[tensor["name"]] = tensor["dtype"]
        types.setdefault("output.weight", types["token_embd.weight"])
        model = torch_model.load(directory)

        def name_of(at):
            if not at.startswith("model.layers."):
                return "output.weight"
            layer, sublayer, part = at[len("model.layers."):].split(".")
            parts = {"o_proj": "attn_output"} if sublayer == "self_attn" else {}
            short = part.removesuffix("_proj")
            return f"blk.{layer}.{parts.get(part, ('attn_' if sublayer == 'self_attn' else 'ffn_') + short)}.weight"

        def linear(at, x):
            return F.linear(rounded(x, types[name_of(at)]), model.get(at + ".weight"), model.get(at + ".bias"))

        def forward(ids):
            with torch.no_grad():
                return model(torch.tensor([ids]))[0].numpy()

        model.linear = linear
        model.head = lambda x, weight: F.linear(rounded(x, types["output.weight"]), weight)
        return forward

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
        with open(os.path.join(directory, "config.json")) as file:
            plain = json.load(file)["model_type"] == "llama"
        for kind in ("q8_0", "q4_0", "q4_k_m", "q6_k"):
            gguf = self.quantised(what, directory, kind, text, 64)
            if plain:  # that rounding is the whole difference
                self.perplexity(f"{what} {kind}, activations rounded in both", gguf, text, 64, ROUNDED,
                                self.rounding_model(gguf, self.path(f"{kind}-hf")))

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
        self.quantised("stories260K", directory, "q8_0", text, 128, NARROW)
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
    global F, families, json, llama_cpp, numpy, torch, torch_model
    import json
    import llama_cpp
    import numpy
    import torch
    import torch.nn.functional as F
    import torch_model
    import write_architecture_goldens as families
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(flags.binary, package, folder)
        for name, bound in EXPRESSIBLE.items():
            checks.golden(name, bound)
            if "gemma" not in name:  # which scales embeddings by the root of its width: grown, it is no longer one
                checks.golden(name, bound, ["--dim", "2x", "--hidden", "3x", "--layers", "5"])
        shape = {"vocab_size": families.V, "embedding_length": families.C, "context_length": 64, "block_count": 2, "feed_forward_length": 48,
                 "attention.head_count": 4, "rope.dimension_count": 6}
        config = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "hidden_size": families.C}
        checks.foreign("phi3", "phi3", "phi3",
                       {**config, "num_key_value_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                        "partial_rotary_factor": 0.75, "sliding_window": None, "tie_word_embeddings": False},
                       {**shape, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-5}, PHI3, ROUNDING)
        for parallel in (True, False):  # llama.cpp computes GELU by tanh here too
            checks.foreign("gptneox" + (", branches side by side" if parallel else ""), "gpt_neox", "gptneox",
                           {**config, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "rotary_pct": 0.75,
                            "rotary_emb_base": 10000.0, "use_parallel_residual": parallel},
                           {**shape, "attention.layer_norm_epsilon": 1e-5, "use_parallel_residual": parallel}, NEOX, TABLES)
        text = os.path.join(folder, "text.txt")
        with open(text, "wb") as file:
            file.write(checks.run("corpus", "--tokens", "8000"))
        checks.trained("llama-like", text, ROUNDING, "--preset", "nano", "--kv-heads", "2", "--hidden", "256")
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
