#!/usr/bin/python3
"""Writes tests/data/golden/tokenformer_*: tiny TokenFormers as their authors' code stores them, with what PyTorch computes.

The operator is written down here from the paper (arXiv 2410.23168, equations 4 and 16, appendix A) and shares no code with
the C++ sources. Each case holds config.json and pytorch_model.bin with the authors' names and layout, and golden.safetensors
with tokens (B, T + 1), logits (B, T, V), the gradient of the mean loss for every parameter under this program's names (of
values transposed, as it stores them), and the losses before each of ten AdamW steps as write_goldens.py makes them.

    /usr/bin/python3 tools/write_tokenformer_goldens.py
"""
import math
import os

import torch
import torch.nn.functional as F

from goldens import ten_losses, write_case

B, T, V, C, L, H, ATTENTION, FFN = 2, 20, 128, 16, 2, 2, 14, 30
KINDS = ("l2_norm_gelu", "gelu_l2_norm", "softmax")


def theta(a, kind):
    n = a.shape[-1]
    if kind == "l2_norm_gelu":
        return F.gelu(a / torch.norm(a, dim=-1, keepdim=True) * math.sqrt(n))
    if kind == "gelu_l2_norm":
        g = F.gelu(a)
        return g / torch.norm(g, dim=-1, keepdim=True) * math.sqrt(n)
    return torch.softmax(a, -1) * n


class TokenFormer:
    def __init__(self, weights, kind):
        self.w, self.kind = weights, kind

    def pattention(self, at, x):
        return theta(x @ self.w[at + ".key_param_tokens"].T, self.kind) @ self.w[at + ".value_param_tokens"]

    def rotate(self, x):  # (B, H, T, D): a quarter of the channels, halves paired
        channels = x.shape[-1] // 4
        frequency = 10000.0 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
        angle = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * frequency
        angle = torch.cat([angle, angle], -1)
        turned, rest = x[..., :channels], x[..., channels:]
        half = channels // 2
        other = torch.cat([-turned[..., half:], turned[..., :half]], -1)
        return torch.cat([turned * angle.cos() + other * angle.sin(), rest], -1)

    def __call__(self, tokens):
        b, t = tokens.shape
        table = self.w["sequential.0.word_embeddings.weight"]
        x = table[tokens]
        for l in range(L):
            at = f"sequential.{l + 2}."
            n = F.layer_norm(x, (C,), eps=1e-5)
            heads = lambda y: y.view(b, t, H, C // H).transpose(1, 2)
            q = self.rotate(heads(self.pattention(at + "attention.query", n)))
            k = self.rotate(heads(self.pattention(at + "attention.key", n)))
            v = heads(self.pattention(at + "attention.value", n))
            scores = q @ k.transpose(-1, -2) / math.sqrt(C // H)
            scores = scores.masked_fill(~torch.ones(t, t, dtype=torch.bool).tril(), -math.inf)
            mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, C)
            x = x + self.pattention(at + "attention.proj", mixed)
            x = x + self.pattention(at + "mlp", F.layer_norm(x, (C,), eps=1e-5))
        at = f"sequential.{L + 3}.norm"
        return F.layer_norm(x, (C,), self.w[at + ".weight"], self.w[at + ".bias"], 1e-5) @ table.T


def our_name(name):
    if name == "sequential.0.word_embeddings.weight":
        return "model.embed_tokens.weight"
    part = name.split(".")
    if part[2] == "norm":
        return "model.norm." + part[3]
    kind = {"key_param_tokens": "keys", "value_param_tokens": "values"}[part[-1]]
    place = "mlp" if part[2] == "mlp" else f"self_attn.{dict(query='q', key='k', value='v', proj='o')[part[3]]}_proj"
    return f"model.layers.{int(part[1]) - 2}.{place}.{kind}"


def random_weights():
    weights = {"sequential.0.word_embeddings.weight": torch.randn(V, C) * 0.25}
    for l in range(L):
        for place, n in [("attention." + p, ATTENTION) for p in ("query", "key", "value", "proj")] + [("mlp", FFN)]:
            weights[f"sequential.{l + 2}.{place}.key_param_tokens"] = torch.randn(n, C) * 0.25
            weights[f"sequential.{l + 2}.{place}.value_param_tokens"] = torch.randn(n, C) * 0.25
    weights[f"sequential.{L + 3}.norm.weight"] = 1 + torch.randn(C) * 0.2
    weights[f"sequential.{L + 3}.norm.bias"] = torch.randn(C) * 0.2
    return weights


def main():
    for seed, kind in enumerate(KINDS):
        torch.manual_seed(seed)
        weights = random_weights()
        tokens = torch.randint(0, V, (B, T + 1))
        inputs, targets = tokens[:, :-1], tokens[:, 1:].reshape(-1)
        parameters = lambda: {k: w.clone().double().requires_grad_() for k, w in weights.items()}

        w = parameters()
        logits = TokenFormer(w, kind)(inputs)
        F.cross_entropy(logits.reshape(-1, V), targets).backward()
        golden = {"tokens": tokens.to(torch.int32), "logits": logits.detach().float()}
        for name, p in w.items():
            golden["gradient." + our_name(name)] = (p.grad.T if name.endswith("value_param_tokens") else p.grad).float()

        w = parameters()
        loss = lambda: F.cross_entropy(TokenFormer(w, kind)(inputs).reshape(-1, V), targets)
        golden["losses"] = losses = ten_losses(loss, w.values())
        config = dict(architectures=["TokenFormerForCausalLM"], num_layers=L, hidden_size=C, num_attention_heads=H,
                      qkv_slot_num=ATTENTION, proj_slot_num=ATTENTION, ffn_slot_num=FFN, seq_length=T,
                      max_position_embeddings=T, vocab_size=V - 5, pos_emb="rotary", rotary_pct=0.25, no_weight_tying=False,
                      norm="layernorm_nonparam", final_norm="layernorm", gpt_j_residual=False,
                      output_layer_parallelism="column", use_bias_in_attn_linear=False,
                      attention_config=[[["tokenformer"], L]], norm_activation_type=kind, init_method="normal",
                      output_layer_init_method="wang_init", hidden_dropout=0, attention_dropout=0, use_cache=True,
                      torch_dtype="float16", transformers_version="4.36.0")
        directory = write_case("tokenformer_" + kind, config, golden=golden)
        torch.save(weights, os.path.join(directory, "pytorch_model.bin"))
        print(f"{kind:14} losses {losses[0]:.4f} -> {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
