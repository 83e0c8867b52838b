#!/usr/bin/python3
"""Writes tests/data/golden/: tiny random models with what PyTorch computes for them.

Each case holds config.json, model.safetensors (f32) and golden.safetensors with tokens (B, T + 1), logits (B, T, V) of
the first T tokens, the gradient of the mean loss for every parameter, and the losses before each of ten AdamW steps on
that one batch (lr 1e-2, betas 0.9 / 0.95, eps 1e-8, decay 0.1 on matrices, gradient norm clipped to 1). Gradients and
logits are computed in double precision and stored as f32.

    /usr/bin/python3 tools/write_goldens.py
"""
import functools

import torch
import torch.nn.functional as F

import goldens
from goldens import attention, gated, gradients, log_sum_exp, plain, random_weights, ten_losses, write_case
from torch_model import TorchModel

B, T, V, C = 2, 24, 61, 32
config = functools.partial(goldens.config, (T, V, C))
LLAMA = dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=V, hidden_size=C, max_position_embeddings=T,
             num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, intermediate_size=48,
             hidden_act="silu", rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, attention_bias=False,
             mlp_bias=False)
CASES = {
    "llama_gqa": LLAMA,
    "gpt2": config([(attention(qkv_bias=True, out_bias=True), plain(bias=True))] * 2,
                   norm=dict(kind="layer", gain=True, bias=True, eps=1e-5), positions="learned"),
    "neox": config([(attention(qkv_bias=True, out_bias=True), plain(activation="gelu", bias=True))] * 2, tied=False,
                   norm=dict(kind="layer", gain=True, bias=True, eps=1e-5), residual="parallel",
                   rotary=dict(base=10000.0, channels=4, pairing="halves")),
    "dropped": config([(attention(kv_heads=1, qk_norm=True), gated(activation="relu2")), (None, gated(activation="relu")),
                       (attention(kv_heads=1), None)], rotary=dict(base=500.0, channels=0, pairing="interleaved")),
    "no_positions": config([(attention(), plain(activation="relu"))] * 2, positions="none",
                           norm=dict(kind="layer", gain=False, bias=False, eps=1e-5)),
    "lse": config([(log_sum_exp(kv_heads=2, value_dim=6, qkv_bias=True, out_bias=True, log_values=True), gated()),
                   (log_sum_exp(), gated())], positions="none"),
    "lse_options": config([(log_sum_exp(kv_heads=2, head_scale=True, decay=True, convolution=4, window=5), gated()),
                           (attention(kv_heads=2), plain()), (log_sum_exp(key_cap=2.5, decay=True, window=30), None)]),
    "lse_shared": config([(log_sum_exp(kv_heads=2, feature_dim=5, decay=True, window=5, shared_window=True), None),
                          (attention(kv_heads=2, convolution=3, qk_norm=True), None),
                          (log_sum_exp(feature_dim=12, head_scale=True, key_cap=4.0, convolution=2), None),
                          (log_sum_exp(window=7, shared_window=True), None)]),
}


def main():
    for seed, (name, cfg) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        weights = random_weights(cfg, 0.25)
        tokens = torch.randint(0, V, (B, T + 1))
        inputs, targets = tokens[:, :-1], tokens[:, 1:].reshape(-1)

        model = TorchModel(cfg, {k: w.clone().double() for k, w in weights.items()})
        logits = model(inputs)
        F.cross_entropy(logits.view(-1, V), targets).backward()
        golden = {"tokens": tokens.to(torch.int32), "logits": logits.detach().float()} | gradients(model)

        trained = TorchModel(cfg, {k: w.clone().double() for k, w in weights.items()})
        losses = ten_losses(lambda: F.cross_entropy(trained(inputs).view(-1, V), targets), trained.parameters())
        golden["losses"] = losses
        write_case(name, cfg, model=weights, golden=golden)
        print(f"{name:14} losses {losses[0]:.4f} -> {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
