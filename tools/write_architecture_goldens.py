#!/usr/bin/python3
"""Writes tests/data/golden/architectures/: a tiny random model of every family that the loader knows, with its logits.

Each case holds config.json in the family's published style, model.safetensors with the family's own tensor names and
layouts, and expected.safetensors with 64 tokens and the logits of all of them; golden/torch_files holds one of them as torch saves
it. The models are written after the
definitions in transformers (class names beside each function) and compute in double precision, from weights rounded to
the number format of the file. Nothing is shared with the C++ sources.

    OPENBLAS_CORETYPE=SKYLAKEX /usr/bin/python3 tools/write_architecture_goldens.py
"""
import json
import math
import os

import torch
import torch.nn.functional as F

from goldens import GOLDEN, write_case

T, V, C = 64, 61, 32
ACT2FN = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}
ACT2FN["gelu_pytorch_tanh"] = ACT2FN["gelu_new"]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Parameters:
    """Draws each tensor when a model first asks for it, and remembers it under the name that it has in the file."""

    def __init__(self, dtype):
        self.dtype, self.tensors = dtype, {}

    def __call__(self, name, *shape, mean=0.0, deviation=0.25):
        if name not in self.tensors:
            self.tensors[name] = (torch.randn(shape, dtype=torch.float64) * deviation + mean).to(self.dtype)
        assert self.tensors[name].shape == shape, name
        return self.tensors[name].double()

    def linear(self, name, x, out, bias=False):
        b = self(name + ".bias", out, deviation=0.2) if bias else None
        return F.linear(x, self(name + ".weight", out, x.shape[-1]), b)

    def conv1d(self, name, x, out):  # pytorch_utils.Conv1D: the weight is (in, out)
        return x @ self(name + ".weight", x.shape[-1], out) + self(name + ".bias", out, deviation=0.2)

    def rms_norm(self, name, x, eps, plus=0.0):
        weight = self(name + ".weight", x.shape[-1], mean=1.0 - plus, deviation=0.2)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * (plus + weight)

    def layer_norm(self, name, x, eps):
        n = x.shape[-1]
        return F.layer_norm(x, (n,), self(name + ".weight", n, mean=1.0, deviation=0.2), self(name + ".bias", n, deviation=0.2), eps)

    def head(self, name, x, embedding, tied):
        return x @ embedding.T if tied else self.linear(name, x, V)


# --- modeling_rope_utils.py -------------------------------------------------------------------------------------------


def rope_parameters(config, dim, base):
    """(inv_freq, attention_scaling), as ROPE_INIT_FUNCTIONS computes them."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    base = scaling.get("rope_theta", base)
    inv_freq = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim))
    if kind == "default":
        return inv_freq, 1.0
    factor = scaling["factor"]
    if kind == "linear":
        return inv_freq / factor, 1.0
    original = scaling["original_max_position_embeddings"]
    if kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        wavelen = 2 * math.pi / inv_freq
        scaled = torch.where(wavelen > original / low, inv_freq / factor, inv_freq)
        smooth = (original / wavelen - low) / (high - low)
        smoothed = (1 - smooth) * scaled / factor + smooth * scaled
        medium = ~(wavelen < original / high) * ~(wavelen > original / low)
        return torch.where(medium, smoothed, scaled), 1.0
    assert kind == "yarn"

    def correction_dim(rotations):
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(correction_dim(scaling.get("beta_fast", 32))), 0)
    high = min(math.ceil(correction_dim(scaling.get("beta_slow", 1))), dim - 1)
    ramp = ((torch.arange(dim // 2, dtype=torch.float64) - low) / ((high - low) or 0.001)).clamp(0, 1)
    extrapolation = 1 - ramp
    mscale = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    return inv_freq / factor * (1 - extrapolation) + inv_freq * extrapolation, scaling.get("attention_factor", mscale)


def rotary(config, x, dim, base):  # (T, H, D); the first `dim` channels turn
    inv_freq, stretch = rope_parameters(config, dim, base)
    freqs = torch.arange(x.shape[0], dtype=torch.float64)[:, None] * inv_freq[None]
    emb = torch.cat((freqs, freqs), -1)[:, None]
    cos, sin = emb.cos() * stretch, emb.sin() * stretch
    turned, passed = x[..., :dim], x[..., dim:]
    first, second = turned[..., : dim // 2], turned[..., dim // 2 :]
    return torch.cat((turned * cos + torch.cat((-second, first), -1) * sin, passed), -1)


def attend(q, k, v, window=None):  # eager_attention_forward over (T, H, D); k and v repeated (repeat_kv)
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
    place = torch.arange(q.shape[0])
    allowed = place[None, :] <= place[:, None]
    if window:
        allowed &= place[None, :] > place[:, None] - window
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v).reshape(q.shape[0], -1)


def heads_of(x, n):
    return x.view(x.shape[0], n, -1)


# --- Llama and its descendants ----------------------------------------------------------------------------------------


def llama_attention(c, p, at, x, window=None, qkv_bias=False, o_bias=False, qk_norm=False, part=1.0, inner=None):
    H, G = c["num_attention_heads"], c.get("num_key_value_heads", c["num_attention_heads"])
    D = c.get("head_dim") or c["hidden_size"] // H
    q = heads_of(p.linear(at + "q_proj", x, H * D, qkv_bias), H)
    k = heads_of(p.linear(at + "k_proj", x, G * D, qkv_bias), G)
    v = heads_of(p.linear(at + "v_proj", x, G * D, qkv_bias), G)
    if qk_norm:
        q, k = p.rms_norm(at + "q_norm", q, c["rms_norm_eps"]), p.rms_norm(at + "k_norm", k, c["rms_norm_eps"])
    base, dim = c.get("rope_theta", 10000.0), int(D * part)
    y = attend(rotary(c, q, dim, base), rotary(c, k, dim, base), v, window)
    if inner:
        y = p.rms_norm(at + inner, y, c["rms_norm_eps"])
    return p.linear(at + "o_proj", y, c["hidden_size"], o_bias)


def llama_mlp(c, p, at, x, act, bias=False):
    gate, up = (p.linear(at + name, x, c["intermediate_size"], bias) for name in ("gate_proj", "up_proj"))
    return p.linear(at + "down_proj", act(gate) * up, c["hidden_size"], bias)


def llama(c, p, ids, act=None, attention=None, mlp=None):  # LlamaForCausalLM
    eps, bias = c["rms_norm_eps"], c.get("attention_bias", False)
    act = act or ACT2FN[c["hidden_act"]]
    attention = attention or (lambda i, at, x: llama_attention(c, p, at, x, qkv_bias=bias, o_bias=bias))
    mlp = mlp or (lambda at, x: llama_mlp(c, p, at, x, act, c.get("mlp_bias", False)))
    embedding = p("model.embed_tokens.weight", V, C)
    x = embedding[ids]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        x = x + attention(i, at + "self_attn.", p.rms_norm(at + "input_layernorm", x, eps))
        x = x + mlp(at + "mlp.", p.rms_norm(at + "post_attention_layernorm", x, eps))
    return p.head("lm_head", p.rms_norm("model.norm", x, eps), embedding, c["tie_word_embeddings"])


def mistral(c, p, ids):  # MistralForCausalLM
    return llama(c, p, ids, attention=lambda i, at, x: llama_attention(c, p, at, x, window=c["sliding_window"]))


def qwen_window(c, i):
    return c["sliding_window"] if c["use_sliding_window"] and i >= c["max_window_layers"] else None


def qwen2(c, p, ids):  # Qwen2ForCausalLM
    return llama(c, p, ids, attention=lambda i, at, x: llama_attention(c, p, at, x, qwen_window(c, i), qkv_bias=True))


def qwen3(c, p, ids):  # Qwen3ForCausalLM
    return llama(c, p, ids, attention=lambda i, at, x: llama_attention(c, p, at, x, qwen_window(c, i), qk_norm=True))


def gemma(c, p, ids):  # GemmaForCausalLM: GemmaRMSNorm multiplies by 1 + weight, GemmaModel scales the embeddings
    eps, act = c["rms_norm_eps"], ACT2FN["gelu_pytorch_tanh"]
    embedding = p("model.embed_tokens.weight", V, C)
    x = embedding[ids] * math.sqrt(C)
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        x = x + llama_attention(c, p, at + "self_attn.", p.rms_norm(at + "input_layernorm", x, eps, plus=1.0))
        x = x + llama_mlp(c, p, at + "mlp.", p.rms_norm(at + "post_attention_layernorm", x, eps, plus=1.0), act)
    return p.head("lm_head", p.rms_norm("model.norm", x, eps, plus=1.0), embedding, c["tie_word_embeddings"])


def phi3(c, p, ids):  # Phi3ForCausalLM
    eps, H, G = c["rms_norm_eps"], c["num_attention_heads"], c["num_key_value_heads"]
    D, act = C // H, ACT2FN[c["hidden_act"]]
    dim = int(D * c.get("partial_rotary_factor", 1.0))
    embedding = p("model.embed_tokens.weight", V, C)
    x = embedding[ids]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        qkv = p.linear(at + "self_attn.qkv_proj", p.rms_norm(at + "input_layernorm", x, eps), (H + 2 * G) * D)
        q, k, v = qkv[:, : H * D], qkv[:, H * D : (H + G) * D], qkv[:, (H + G) * D :]
        q, k = (rotary(c, heads_of(t, n), dim, c["rope_theta"]) for t, n in ((q, H), (k, G)))
        x = x + p.linear(at + "self_attn.o_proj", attend(q, k, heads_of(v, G), c["sliding_window"]), C)
        states = p.linear(at + "mlp.gate_up_proj", p.rms_norm(at + "post_attention_layernorm", x, eps), 2 * c["intermediate_size"])
        gate, up = states.chunk(2, dim=-1)
        x = x + p.linear(at + "mlp.down_proj", up * act(gate), C)
    return p.head("lm_head", p.rms_norm("model.norm", x, eps), embedding, c["tie_word_embeddings"])


def stablelm(c, p, ids):  # StableLmForCausalLM
    eps, act = c["layer_norm_eps"], ACT2FN[c["hidden_act"]]
    embedding = p("model.embed_tokens.weight", V, C)
    x = embedding[ids]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        n = p.layer_norm(at + "input_layernorm", x, eps)
        a = llama_attention(c, p, at + "self_attn.", n, qkv_bias=c["use_qkv_bias"], part=c["partial_rotary_factor"])
        if c["use_parallel_residual"]:
            x = x + a + llama_mlp(c, p, at + "mlp.", n, act)
        else:
            x = x + a
            x = x + llama_mlp(c, p, at + "mlp.", p.layer_norm(at + "post_attention_layernorm", x, eps), act)
    return p.head("lm_head", p.layer_norm("model.norm", x, eps), embedding, c["tie_word_embeddings"])


def minicpm(c, p, ids):  # MiniCPMForCausalLM, modeling_minicpm.py in openbmb's model repositories
    eps, act = c["rms_norm_eps"], sparse_activation(c)
    depth = c["scale_depth"] / math.sqrt(c["num_hidden_layers"])
    embedding = p("model.embed_tokens.weight", V, C)
    x = embedding[ids] * c["scale_emb"]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        x = x + llama_attention(c, p, at + "self_attn.", p.rms_norm(at + "input_layernorm", x, eps)) * depth
        x = x + llama_mlp(c, p, at + "mlp.", p.rms_norm(at + "post_attention_layernorm", x, eps), act) * depth
    x = p.rms_norm("model.norm", x, eps) / (C / c["dim_model_base"])
    return p.head("lm_head", x, embedding, c["tie_word_embeddings"])


def sparse_activation(c):
    if c["hidden_act"] == "fatrelu":  # FATReLU: x where x > threshold, else 0
        return lambda x: torch.where(x > c["hidden_act_param"], x, torch.zeros_like(x))
    return ACT2FN[c["hidden_act"]]


def sparsellama(c, p, ids):  # SparseLlamaForCausalLM of ProSparse
    return llama(c, p, ids, act=sparse_activation(c))


def bamboo(c, p, ids):  # BambooForCausalLM: BambooMLP activates gate and up
    def mlp(at, x):
        gate, up = (p.linear(at + name, x, c["intermediate_size"]) for name in ("gate_proj", "up_proj"))
        return p.linear(at + "down_proj", F.relu(gate) * F.relu(up), C)

    return llama(c, p, ids, mlp=mlp, attention=lambda i, at, x: llama_attention(c, p, at, x, window=c["sliding_window"]))


def bitnet(c, p, ids):  # BitNetForCausalLM
    def mlp(at, x):
        gate, up = (p.linear(at + name, x, c["intermediate_size"]) for name in ("gate_proj", "up_proj"))
        inner = p.rms_norm(at + "ffn_sub_norm", ACT2FN[c["hidden_act"]](gate) * up, c["rms_norm_eps"])
        return p.linear(at + "down_proj", inner, C)

    return llama(c, p, ids, mlp=mlp, attention=lambda i, at, x: llama_attention(c, p, at, x, inner="attn_sub_norm"))


# --- GPT's shape ------------------------------------------------------------------------------------------------------


def gpt2(c, p, ids):  # GPT2LMHeadModel
    eps, H, act = c["layer_norm_epsilon"], c["n_head"], ACT2FN[c["activation_function"]]
    wte = p("transformer.wte.weight", V, C)
    x = wte[ids] + p("transformer.wpe.weight", c["n_positions"], C)[: len(ids)]
    for i in range(c["n_layer"]):
        at = f"transformer.h.{i}."
        q, k, v = p.conv1d(at + "attn.c_attn", p.layer_norm(at + "ln_1", x, eps), 3 * C).split(C, dim=-1)
        x = x + p.conv1d(at + "attn.c_proj", attend(*(heads_of(t, H) for t in (q, k, v))), C)
        x = x + p.conv1d(at + "mlp.c_proj", act(p.conv1d(at + "mlp.c_fc", p.layer_norm(at + "ln_2", x, eps), 4 * C)), C)
    return p.head("lm_head", p.layer_norm("transformer.ln_f", x, eps), wte, c["tie_word_embeddings"])


def gpt_neox(c, p, ids):  # GPTNeoXForCausalLM
    eps, H, act = c["layer_norm_eps"], c["num_attention_heads"], ACT2FN[c["hidden_act"]]
    dim, base = int(C // H * c["rotary_pct"]), c["rotary_emb_base"]
    x = p("gpt_neox.embed_in.weight", V, C)[ids]
    for i in range(c["num_hidden_layers"]):
        at = f"gpt_neox.layers.{i}."

        def mlp(x):
            h = act(p.linear(at + "mlp.dense_h_to_4h", p.layer_norm(at + "post_attention_layernorm", x, eps), c["intermediate_size"], True))
            return p.linear(at + "mlp.dense_4h_to_h", h, C, True)

        qkv = p.linear(at + "attention.query_key_value", p.layer_norm(at + "input_layernorm", x, eps), 3 * C, True)
        q, k, v = heads_of(qkv, H).chunk(3, dim=-1)  # (T, H, 3 D)
        a = p.linear(at + "attention.dense", attend(rotary(c, q, dim, base), rotary(c, k, dim, base), v), C, True)
        if c["use_parallel_residual"]:
            x = mlp(x) + a + x
        else:
            x = a + x
            x = mlp(x) + x
    return p.linear("embed_out", p.layer_norm("gpt_neox.final_layer_norm", x, eps), V)


def opt(c, p, ids):  # OPTForCausalLM: OPTLearnedPositionalEmbedding has an offset of 2
    H, eps = c["num_attention_heads"], 1e-5
    embedding = p("model.decoder.embed_tokens.weight", V, C)
    positions = p("model.decoder.embed_positions.weight", c["max_position_embeddings"] + 2, C)
    x = embedding[ids] + positions[torch.arange(len(ids)) + 2]
    for i in range(c["num_hidden_layers"]):
        at = f"model.decoder.layers.{i}."
        n = p.layer_norm(at + "self_attn_layer_norm", x, eps)
        q, k, v = (heads_of(p.linear(at + f"self_attn.{name}_proj", n, C, True), H) for name in "qkv")
        x = x + p.linear(at + "self_attn.out_proj", attend(q, k, v), C, True)
        h = F.relu(p.linear(at + "fc1", p.layer_norm(at + "final_layer_norm", x, eps), c["ffn_dim"], True))
        x = x + p.linear(at + "fc2", h, C, True)
    return p.head("lm_head", p.layer_norm("model.decoder.final_layer_norm", x, eps), embedding, True)


def falcon(c, p, ids):  # FalconForCausalLM; FalconAttention._split_heads, FalconDecoderLayer.forward
    eps, H, bias, grouped = c["layer_norm_epsilon"], c["num_attention_heads"], c["bias"], c["new_decoder_architecture"]
    D = C // H
    embedding = p("transformer.word_embeddings.weight", V, C)
    x = embedding[ids]
    for i in range(c["num_hidden_layers"]):
        at = f"transformer.h.{i}."
        if grouped:
            before_attention, before_mlp = p.layer_norm(at + "ln_attn", x, eps), p.layer_norm(at + "ln_mlp", x, eps)
            G = c["num_kv_heads"]
            fused = p.linear(at + "self_attention.query_key_value", before_attention, (2 * G + H) * D, bias)
            fused = fused.view(len(ids), G, H // G + 2, D)
            q, k, v = fused[:, :, :-2].reshape(len(ids), H, D), fused[:, :, -2], fused[:, :, -1]
        else:
            before_attention = p.layer_norm(at + "input_layernorm", x, eps)
            if c["multi_query"]:
                fused = p.linear(at + "self_attention.query_key_value", before_attention, C + 2 * D, bias).view(len(ids), H + 2, D)
                q, k, v = fused[:, :-2], fused[:, [-2]], fused[:, [-1]]
            else:
                fused = p.linear(at + "self_attention.query_key_value", before_attention, 3 * C, bias).view(len(ids), H, 3, D)
                q, k, v = fused[:, :, 0], fused[:, :, 1], fused[:, :, 2]
        base = c.get("rope_theta", 10000.0)
        a = p.linear(at + "self_attention.dense", attend(rotary(c, q, D, base), rotary(c, k, D, base), v), C, bias)
        if not grouped:
            if c["parallel_attn"]:
                before_mlp = before_attention
            else:
                x = x + a
                before_mlp = p.layer_norm(at + "post_attention_layernorm", x, eps)
        h = p.linear(at + "mlp.dense_4h_to_h", F.gelu(p.linear(at + "mlp.dense_h_to_4h", before_mlp, c.get("ffn_hidden_size", 4 * C), bias)), C, bias)
        x = x + h + a if grouped or c["parallel_attn"] else x + h
    return p.head("lm_head", p.layer_norm("transformer.ln_f", x, eps), embedding, True)


# --- the cases --------------------------------------------------------------------------------------------------------

USUAL = dict(initializer_range=0.02, use_cache=True, bos_token_id=1, eos_token_id=2, transformers_version="4.51.3")


def config(model_type, architecture, dtype, **fields):
    return dict(architectures=[architecture], model_type=model_type, torch_dtype=dtype, **USUAL, vocab_size=V, **fields)


def llama_config(model_type="llama", architecture="LlamaForCausalLM", dtype="bfloat16", **fields):
    usual = dict(hidden_size=C, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                 hidden_act="silu", max_position_embeddings=T, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
                 attention_dropout=0.0)
    return {k: v for k, v in config(model_type, architecture, dtype, **(usual | fields)).items() if v is not ...}


NEOX = dict(hidden_size=C, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, hidden_act="gelu", rotary_pct=0.25,
            rotary_emb_base=10000, layer_norm_eps=1e-5, max_position_embeddings=T, tie_word_embeddings=False,
            classifier_dropout=0.1)
STABLELM = dict(rms_norm_eps=..., layer_norm_eps=1e-5, partial_rotary_factor=0.5, hidden_dropout=0.0, qk_layernorm=False,
                num_hidden_layers=1)
FALCON = dict(hidden_size=C, num_hidden_layers=1, num_attention_heads=4, layer_norm_epsilon=1e-5, alibi=False, hidden_dropout=0.0,
              attention_dropout=0.0, apply_residual_connection_post_layernorm=False)
CASES = {
    "llama2": (llama, llama_config(dtype="float16", num_key_value_heads=4, pretraining_tp=1, rope_scaling=None)),
    "llama3": (llama, llama_config(head_dim=8, rope_theta=500000.0, attention_bias=False, mlp_bias=False, rope_scaling=dict(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16, rope_type="llama3"))),
    "llama_linear": (llama, llama_config(num_hidden_layers=1, hidden_act="relu", rope_scaling=dict(type="linear", factor=4.0))),
    "llama_yarn": (llama, llama_config(num_hidden_layers=1, head_dim=16, rope_theta=..., max_position_embeddings=256,
        rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=T, beta_fast=2))),
    "llama_biases": (llama, llama_config(num_hidden_layers=1, attention_bias=True, mlp_bias=True)),
    "smollm": (llama, llama_config(tie_word_embeddings=True, dtype="float32", num_hidden_layers=1)),
    "mistral": (mistral, llama_config("mistral", "MistralForCausalLM", sliding_window=16, num_hidden_layers=1)),
    "qwen2": (qwen2, llama_config("qwen2", "Qwen2ForCausalLM", sliding_window=12, use_sliding_window=True, max_window_layers=1,
                                  tie_word_embeddings=True)),
    "qwen3": (qwen3, llama_config("qwen3", "Qwen3ForCausalLM", sliding_window=None, use_sliding_window=False, head_dim=16,
                                  max_window_layers=2, attention_bias=False, num_hidden_layers=1)),
    "gemma": (gemma, llama_config("gemma", "GemmaForCausalLM", hidden_act="gelu", hidden_activation=None, head_dim=16,
                                  num_key_value_heads=1, tie_word_embeddings=..., num_hidden_layers=1)),
    "phi3": (phi3, llama_config("phi3", "Phi3ForCausalLM", sliding_window=20, partial_rotary_factor=0.75, resid_pdrop=0.0,
                                embd_pdrop=0.0, original_max_position_embeddings=T, rope_scaling=None)),
    "stablelm": (stablelm, llama_config("stablelm", "StableLmForCausalLM", use_qkv_bias=True, use_parallel_residual=False, **STABLELM)),
    "stablelm_parallel": (stablelm, llama_config("stablelm", "StableLmForCausalLM", use_qkv_bias=False, use_parallel_residual=True,
                                                 **STABLELM)),
    "minicpm": (minicpm, llama_config("minicpm", "MiniCPMForCausalLM", hidden_act="fatrelu", hidden_act_param=0.03, scale_emb=12,
                                      scale_depth=1.4, dim_model_base=8, tie_word_embeddings=...)),
    "prosparse": (sparsellama, llama_config("sparsellama", "SparseLlamaForCausalLM", hidden_act="fatrelu", hidden_act_param=0.01,
                                            num_hidden_layers=1)),
    "bamboo": (bamboo, llama_config("bamboo", "BambooForCausalLM", hidden_act="relu", sliding_window=24, num_hidden_layers=1)),
    "bitnet": (bitnet, llama_config("bitnet", "BitNetForCausalLM", hidden_act="relu2", tie_word_embeddings=True, rope_theta=500000.0,
                                    num_hidden_layers=1)),
    "gpt2": (gpt2, config("gpt2", "GPT2LMHeadModel", "float16", n_positions=T, n_ctx=T, n_embd=C, n_layer=1, n_head=4,
                          activation_function="gelu_new", layer_norm_epsilon=1e-5, attn_pdrop=0.1, embd_pdrop=0.1, resid_pdrop=0.1,
                          summary_activation=None, summary_first_dropout=0.1, summary_proj_to_labels=True,
                          summary_type="cls_index", summary_use_proj=True,
                          task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}})),
    "gpt_neox": (gpt_neox, config("gpt_neox", "GPTNeoXForCausalLM", "float16", use_parallel_residual=True, **NEOX)),
    "gpt_neox_sequential": (gpt_neox, config("gpt_neox", "GPTNeoXForCausalLM", "bfloat16", use_parallel_residual=False, **NEOX)),
    "opt": (opt, config("opt", "OPTForCausalLM", "float16", hidden_size=C, num_hidden_layers=1, ffn_dim=64, num_attention_heads=4,
                        max_position_embeddings=T, do_layer_norm_before=True, activation_function="relu", word_embed_proj_dim=C,
                        _remove_final_layer_norm=False, dropout=0.1, layerdrop=0.0, pad_token_id=1, prefix="</s>")),
    "falcon_multi_query": (falcon, config("falcon", "FalconForCausalLM", "bfloat16", multi_query=True, parallel_attn=True, bias=False,
                                          new_decoder_architecture=False, **FALCON)),
    "falcon_grouped": (falcon, config("falcon", "FalconForCausalLM", "bfloat16", multi_query=True, parallel_attn=True, bias=False,
                                      new_decoder_architecture=True, num_kv_heads=2, **FALCON)),
    "falcon_sequential": (falcon, config("falcon", "FalconForCausalLM", "bfloat16", multi_query=False, parallel_attn=False, bias=True,
                                         new_decoder_architecture=False, **FALCON)),
}


def write_torch_files(cfg, tensors):
    """The same weights as torch.save writes them, in one file and in two with an index."""
    names = list(tensors)
    parts = {f"pytorch_model-{i + 1:05}-of-00002.bin": names[i * len(names) // 2 : (i + 1) * len(names) // 2] for i in range(2)}
    for folder, files in (("whole", {"pytorch_model.bin": names}), ("sharded", parts)):
        directory = os.path.join(GOLDEN, "torch_files", folder)
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "config.json"), "w") as file:
            json.dump(cfg, file, indent=1)
        for name, held in files.items():
            torch.save({key: tensors[key] for key in held}, os.path.join(directory, name))
        if folder == "sharded":
            with open(os.path.join(directory, "pytorch_model.bin.index.json"), "w") as file:
                index = {key: name for name, held in files.items() for key in held}
                json.dump(dict(metadata=dict(total_size=sum(t.numel() * 2 for t in tensors.values())), weight_map=index), file)


def main():
    for seed, (name, (model, cfg)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        ids = torch.randint(0, V, (T,))
        parameters = Parameters(DTYPES[cfg["torch_dtype"]])
        complete = {"tie_word_embeddings": cfg["model_type"] in ("gemma", "minicpm", "gpt2")} | cfg  # the classes' defaults
        logits = model(complete, parameters, ids)
        directory = write_case(os.path.join("architectures", name), cfg, model=parameters.tensors,
                               expected=dict(tokens=ids.int(), logits=logits.float()))
        if name == "llama_linear":
            write_torch_files(cfg, parameters.tensors)
        size = sum(os.path.getsize(os.path.join(directory, file)) for file in os.listdir(directory))
        print(f"{name:20} {size:6} bytes, logits to {logits.abs().max():.3f}")


if __name__ == "__main__":
    main()
