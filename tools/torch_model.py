"""An independent implementation of the models that sparsam describes, in PyTorch (Debian's python3-torch 1.13).

It reads and writes the same directories (config.json, model.safetensors) with code of its own and shares nothing with the
C++ sources: tests compare the two. Used by what writes goldens, by torch_train.py and by the checks.
"""
import json
import math
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F

NUMPY = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "F64": np.float64}


def read_safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + length + begin : 8 + length + end]
        if entry["dtype"] == "BF16":
            wide = np.frombuffer(raw, np.uint16).astype(np.uint32) << 16
            array = wide.view(np.float32)
        else:
            array = np.frombuffer(raw, NUMPY[entry["dtype"]])
        tensors[name] = torch.from_numpy(array.reshape(entry["shape"]).copy())
    return tensors


def write_safetensors(path, tensors):
    header, offset, parts = {"__metadata__": {"format": "pt"}}, 0, []
    kinds = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.float64: "F64"}
    for name, tensor in tensors.items():
        words = tensor.detach().contiguous()
        raw = (words.view(torch.int16) if words.dtype == torch.bfloat16 else words).numpy().tobytes()
        header[name] = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
        parts.append(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))


def canonical(config):
    """GPT-2's config.json in the names of the others; those as they are."""
    if config["model_type"] != "gpt2":
        return config
    C, H = config["n_embd"], config["n_head"]
    layer = dict(attention=dict(heads=H, kv_heads=H, head_dim=C // H, qkv_bias=True, out_bias=True, qk_norm=False),
                 mlp=dict(gated=False, hidden=config["n_inner"], activation=config["activation_function"], bias=True))
    return dict(model_type="sparsam", vocab_size=config["vocab_size"], hidden_size=C, max_position_embeddings=config["n_positions"],
                num_hidden_layers=config["n_layer"], tie_word_embeddings=config["tie_word_embeddings"],
                sparsam=dict(norm=dict(kind="layer", gain=True, bias=True, eps=config["layer_norm_epsilon"]), positions="learned",
                             residual="sequential", layers=[layer] * config["n_layer"]))


def describe(config):
    """config.json -> the per-layer description, also for a Llama configuration."""
    if "sparsam" in config:
        return config["sparsam"]
    assert config["model_type"] == "llama", config["model_type"]
    heads = config["num_attention_heads"]
    attention = dict(heads=heads, kv_heads=config.get("num_key_value_heads", heads),
                     head_dim=config.get("head_dim", config["hidden_size"] // heads),
                     qkv_bias=config.get("attention_bias", False), out_bias=config.get("attention_bias", False), qk_norm=False)
    mlp = dict(gated=True, hidden=config["intermediate_size"], activation=config["hidden_act"], bias=config.get("mlp_bias", False))
    return dict(norm=dict(kind="rms", gain=True, bias=False, eps=config["rms_norm_eps"]), positions="rotary",
                rotary=dict(base=config["rope_theta"], channels=0, pairing="halves"), residual="sequential",
                layers=[dict(attention=attention, mlp=mlp)] * config["num_hidden_layers"])


def shapes(cfg):
    """Every parameter's shape, from the description."""
    d, V, C = describe(cfg), cfg["vocab_size"], cfg["hidden_size"]
    yield "model.embed_tokens.weight", (V, C)
    if d["positions"] == "learned":
        yield "model.embed_positions.weight", (cfg["max_position_embeddings"], C)

    def norm(at):
        if d["norm"]["gain"]:
            yield at + ".weight", (C,)
        if d["norm"]["bias"]:
            yield at + ".bias", (C,)

    def linear(at, out, inp, bias):
        yield at + ".weight", (out, inp)
        if bias:
            yield at + ".bias", (out,)

    for i, layer in enumerate(d["layers"]):
        at, a, m, lse = f"model.layers.{i}.", layer.get("attention"), layer["mlp"], layer.get("log_sum_exp")
        if lse:
            q, k = lse["heads"] * lse["head_dim"], lse["kv_heads"] * lse["head_dim"]
            v, o = (lse[heads] * (lse.get("value_dim") or lse["head_dim"]) for heads in ("kv_heads", "heads"))
            taps = lse.get("convolution", 0)
            yield from norm(at + "input_layernorm")
            for name, out in (("q", q), ("k", k), ("v", v)):
                yield from linear(at + f"self_attn.{name}_proj", out, C, lse["qkv_bias"])
                if taps:
                    yield at + f"self_attn.{name}_conv", (out * taps,)
            yield from linear(at + "self_attn.o_proj", C, o, lse["out_bias"])
            features = lse.get("feature_dim") or lse["head_dim"]
            if lse["decay"]:
                yield from linear(at + "self_attn.decay_proj", lse["kv_heads"] * features, C, True)
            if lse.get("feature_dim"):
                yield at + "self_attn.q_map", (q * features,)
                yield at + "self_attn.k_map", (k * features,)
            if lse["head_scale"]:
                yield at + "self_attn.q_scale", (lse["heads"],)
                yield at + "self_attn.k_scale", (lse["kv_heads"],)
            if lse.get("window"):
                yield at + "self_attn.state_logit", (lse["heads"],)
        if a:
            q, k = a["heads"] * a["head_dim"], a["kv_heads"] * a["head_dim"]
            yield from norm(at + "input_layernorm")
            for name, out in (("q", q), ("k", k), ("v", k)):
                yield from linear(at + f"self_attn.{name}_proj", out, C, a["qkv_bias"])
                if a.get("convolution"):
                    yield at + f"self_attn.{name}_conv", (out * a["convolution"],)
            yield from linear(at + "self_attn.o_proj", C, q, a["out_bias"])
            if a["qk_norm"]:
                yield at + "self_attn.q_norm.weight", (a["head_dim"],)
                yield at + "self_attn.k_norm.weight", (a["head_dim"],)
        if m:
            yield from norm(at + "post_attention_layernorm")
            if m["gated"]:
                yield from linear(at + "mlp.gate_proj", m["hidden"], C, m["bias"])
            yield from linear(at + "mlp.up_proj", m["hidden"], C, m["bias"])
            yield from linear(at + "mlp.down_proj", C, m["hidden"], m["bias"])
    yield from norm("model.norm")
    if "classifier" in d:
        yield "score.weight", (len(cfg["id2label"]), C)
    elif not cfg["tie_word_embeddings"]:
        yield "lm_head.weight", (V, C)


ACTIVATIONS = {
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def adamw(parameters, lr, betas, eps, decay):
    """AdamW with decoupled decay on matrices only."""
    parameters = list(parameters)
    groups = [dict(params=[p for p in parameters if p.dim() > 1], weight_decay=decay),
              dict(params=[p for p in parameters if p.dim() == 1], weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps)


class TorchModel(torch.nn.Module):
    def __init__(self, config, weights):
        super().__init__()
        self.config, self.d, self.tables = config, describe(config), {}
        self.w = torch.nn.ParameterDict({name.replace(".", "/"): torch.nn.Parameter(t) for name, t in weights.items()})

    def get(self, name):
        key = name.replace(".", "/")
        return self.w[key] if key in self.w else None

    def named(self):
        return {name.replace("/", "."): parameter for name, parameter in self.w.items()}

    def norm(self, at, x):
        n, gain, bias = self.d["norm"], self.get(at + ".weight"), self.get(at + ".bias")
        if n["kind"] == "layer":
            return F.layer_norm(x, (x.shape[-1],), gain, bias, n["eps"])
        return self.rms(x, gain, n["eps"])

    @staticmethod
    def rms(x, gain, eps):
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        return y if gain is None else y * gain

    def linear(self, at, x):
        return F.linear(x, self.get(at + ".weight"), self.get(at + ".bias"))

    @staticmethod
    def head(x, weight):
        return F.linear(x, weight)

    def rope(self, x):  # (B, T, H, D)
        r = self.d["rotary"]
        channels = r["channels"] or x.shape[-1]
        key = (channels, x.shape[1], x.dtype)
        if key not in self.tables:
            frequency = r["base"] ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
            angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequency[None]
            self.tables[key] = angle.cos().to(x.dtype)[None, :, None], angle.sin().to(x.dtype)[None, :, None]
        cos, sin = self.tables[key]
        turned, rest = x[..., :channels], x[..., channels:]
        if r["pairing"] == "halves":
            a, b = turned.chunk(2, -1)
            turned = torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
        else:
            a, b = turned[..., 0::2], turned[..., 1::2]
            turned = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
        return torch.cat([turned, rest], -1)

    def seen(self, x):
        """Which tokens (second) a token (first) sees, (1 or B, 1, T, T): padding is seen by none."""
        T = x.shape[1]
        every = torch.ones(1, 1, T, T, dtype=torch.bool)
        if self.d.get("causal", True):
            every = every.tril()
        return every if self.lengths is None else every & (torch.arange(T) < self.lengths[:, None])[:, None, None]

    def projected(self, at, a, name, heads, x):
        y = self.linear(at + f"self_attn.{name}_proj", x)
        if taps := a.get("convolution", 0):
            weight = self.get(at + f"self_attn.{name}_conv").view(-1, 1, taps)
            y = y + F.conv1d(F.pad(y.transpose(1, 2), (taps - 1, 0)), weight, groups=y.shape[-1]).transpose(1, 2)
        return y.view(*x.shape[:2], heads, -1)

    def attention(self, at, a, x):
        B, T, _ = x.shape
        q = self.projected(at, a, "q", a["heads"], x)
        k, v = self.projected(at, a, "k", a["kv_heads"], x), self.projected(at, a, "v", a["kv_heads"], x)
        if a["qk_norm"]:
            eps = self.d["norm"]["eps"]
            q = self.rms(q, self.get(at + "self_attn.q_norm.weight"), eps)
            k = self.rms(k, self.get(at + "self_attn.k_norm.weight"), eps)
        if self.d["positions"] == "rotary":
            q, k = self.rope(q), self.rope(k)
        repeat = a["heads"] // a["kv_heads"]
        k, v = k.repeat_interleave(repeat, 2), v.repeat_interleave(repeat, 2)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(a["head_dim"])
        p = scores.masked_fill(~self.seen(x), float("-inf")).softmax(-1)
        return self.linear(at + "self_attn.o_proj", (p @ v).transpose(1, 2).reshape(B, T, -1))

    def log_sum_exp(self, at, a, x):
        """Equation 3 of arXiv 2404.05843 with its sums over channels and tokens written out, in log space."""
        B, T, _ = x.shape
        H, G, E = a["heads"], a["kv_heads"], a["head_dim"]
        q, k, v = self.projected(at, a, "q", H, x), self.projected(at, a, "k", G, x), self.projected(at, a, "v", G, x)
        at += "self_attn."
        lower = torch.ones(T, T, dtype=torch.bool).tril()
        window, shared = a.get("window", 0), a.get("shared_window", False)
        near = lower & ~torch.ones(T, T, dtype=torch.bool).tril(-window)
        turn = self.rope if self.d["positions"] == "rotary" else lambda t: t
        own_q, own_k = q, k
        if features := a.get("feature_dim", 0):
            mapped = lambda t, name: torch.einsum("bthe,hfe->bthf", turn(t), self.get(at + name).view(-1, features, E))
            own_q, own_k = mapped(q, "q_map"), mapped(k, "k_map")
        if a["head_scale"]:
            own_q, own_k = own_q * self.get(at + "q_scale")[:, None], own_k * self.get(at + "k_scale")[:, None]
        if cap := a.get("key_cap", 0):
            own_k = cap * torch.tanh(own_k / cap)
        decay = torch.zeros_like(own_k)
        if a["decay"]:
            decay = F.logsigmoid(self.linear(at + "decay_proj", x)).view_as(own_k) / 16
        total = decay.cumsum(1)
        over = lambda t: t.repeat_interleave(H // G, 2).transpose(1, 2)  # (B, H, T, .)
        # A token that the state takes in `window` positions late has decayed as far as the tokens before it that are in.
        late = F.pad(total, (0, 0, 0, 0, window, 0))[:, : total.shape[1]] if shared else total
        queries, keys, values = (own_q.transpose(1, 2) + over(late)), over(own_k - total), over(v)
        weights = (queries[:, :, :, None] + keys[:, :, None]).logsumexp(-1)
        if window:
            scores = turn(q).transpose(1, 2) @ over(turn(k)).transpose(-1, -2) / math.sqrt(E)
        if shared:  # equation 7 of arXiv 2410.10254, the factor of the state's weights in place of the window's
            joint = torch.where(near, scores, weights + self.get(at + "state_logit")[:, None, None])
            y = joint.masked_fill(~lower, float("-inf")).softmax(-1) @ values
            return self.linear(at + "o_proj", y.transpose(1, 2).reshape(B, T, -1))
        weights = weights.masked_fill(~self.seen(x), float("-inf"))
        weights = weights - weights.logsumexp(-1, keepdim=True)  # (B, H, T, T), logarithms
        if a["log_values"]:
            y = (weights[..., None] + values[:, :, None]).logsumexp(3)
        else:
            y = weights.exp() @ values
        if window:
            exact = scores.masked_fill(~near, float("-inf")).softmax(-1) @ values
            share = self.get(at + "state_logit").sigmoid()[:, None, None]
            y = share * y + (1 - share) * exact
        return self.linear(at + "o_proj", y.transpose(1, 2).reshape(B, T, -1))

    def mlp(self, at, m, x):
        f = ACTIVATIONS[m["activation"]]
        up = self.linear(at + "mlp.up_proj", x)
        h = f(self.linear(at + "mlp.gate_proj", x)) * up if m["gated"] else f(up)
        return self.linear(at + "mlp.down_proj", h)

    def forward(self, tokens, lengths=None):  # (B, T), of which `lengths` (B) are real -> logits (B, T, V) or (B, classes)
        self.lengths = lengths
        x = F.embedding(tokens, self.get("model.embed_tokens.weight"))
        if self.d["positions"] == "learned":
            x = x + self.get("model.embed_positions.weight")[: tokens.shape[1]]
        for i, layer in enumerate(self.d["layers"]):
            at, block = f"model.layers.{i}.", x
            if "log_sum_exp" in layer:
                x = x + self.log_sum_exp(at, layer["log_sum_exp"], self.norm(at + "input_layernorm", x))
            elif layer["attention"]:
                x = x + self.attention(at, layer["attention"], self.norm(at + "input_layernorm", x))
            if layer["mlp"]:
                source = block if self.d["residual"] == "parallel" else x
                x = x + self.mlp(at, layer["mlp"], self.norm(at + "post_attention_layernorm", source))
        x = self.norm("model.norm", x)
        if "classifier" in self.d:
            real = torch.ones(x.shape[:2]) if lengths is None else torch.arange(x.shape[1]) < lengths[:, None]
            real = real.to(x.dtype)[:, :, None]
            return self.head((x * real).sum(1) / real.sum(1), self.get("score.weight"))
        head = self.get("lm_head.weight")
        return self.head(x, self.get("model.embed_tokens.weight") if head is None else head)

    def optimizer(self, lr, betas, eps, decay):
        return adamw(self.w.values(), lr, betas, eps, decay)


def load(directory):
    with open(os.path.join(directory, "config.json")) as file:
        config = json.load(file)
    return TorchModel(config, read_safetensors(os.path.join(directory, "model.safetensors")))
