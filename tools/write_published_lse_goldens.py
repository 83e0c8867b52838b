#!/usr/bin/python3
"""Writes tests/data/golden/lse_published: a tiny model of the kind published with arXiv 2404.05843, and what PyTorch computes.

The model is written down here from the released definition (github.com/glassroom/heinsen_attention): its layers, its names
and its order of tensors, its attention as logarithms of cumulative sums, its positions as their parallel form. The model
shares no code with the C++ sources nor with torch_model.py. Format: see write_goldens.py; the weights stand under this
program's names, since the authors published no checkpoint. The size of the full model is counted as well.

    /usr/bin/python3 tools/write_published_lse_goldens.py
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from goldens import config, log_sum_exp, ten_losses, write_case

B, T, V = 2, 24, 61


class Layer(nn.Module):
    def __init__(self, C, H, E, D):
        super().__init__()
        self.sizes, self.heads = (E, E, D), H
        self.feedforward1 = nn.Sequential(nn.LayerNorm(C), nn.Linear(C, H * (E + E + D)))
        self.feedforward2 = nn.Sequential(nn.Linear(H * D, 2 * C), nn.GLU(dim=-1), nn.Linear(C, C, bias=False))

    def forward(self, x):
        q, k, log_v = self.feedforward1(x).unflatten(-1, (self.heads, -1)).transpose(1, 2).split(self.sizes, -1)
        h_s = torch.logcumsumexp(k[..., None] + log_v[..., None, :], dim=2)  # (B, H, T, E, D)
        h_z = torch.logcumsumexp(k, dim=2)
        log_y = torch.logsumexp(q[..., None] + h_s, dim=-2) - torch.logsumexp(q + h_z, dim=-1, keepdim=True)
        return x + self.feedforward2(log_y.transpose(1, 2).flatten(2))


class Published(nn.Module):
    def __init__(self, vocab, C, layers, H, E):
        super().__init__()
        self.embed = nn.Embedding(vocab, C)
        self.dense = nn.Linear(C, 2 * C)  # of the positions
        self.layers = nn.Sequential(*[Layer(C, H, E, E) for _ in range(layers)])
        self.lnorm = nn.LayerNorm(C)

    def forward(self, tokens):
        x = self.embed(tokens)
        logits, inputs = self.dense(x).chunk(2, -1)
        total = F.pad(F.logsigmoid(logits).cumsum(1), (0, 0, 1, 0))
        x = x + (total + torch.logcumsumexp(F.pad(inputs, (0, 0, 1, 0)) - total, 1))[:, 1:]
        return self.lnorm(self.layers(x)) @ self.embed.weight.T


def ours(model, tensors):
    """The tensors of `tensors` (named as the model's parameters) under this program's names."""
    C, result = model.lnorm.weight.shape[0], {}
    result["model.embed_tokens.weight"] = tensors["embed.weight"]
    for kind in ("weight", "bias"):
        first, second = tensors["dense." + kind].chunk(2)
        result["model.position_coefficient." + kind], result["model.position_input." + kind] = first, second
        result["model.norm." + kind] = tensors["lnorm." + kind]
    for i, layer in enumerate(model.layers):
        at, to = f"layers.{i}.", f"model.layers.{i}."
        for kind in ("weight", "bias"):
            result[to + "input_layernorm." + kind] = tensors[at + "feedforward1.0." + kind]
            heads = tensors[at + "feedforward1.1." + kind].unflatten(0, (layer.heads, -1)).split(layer.sizes, 1)
            for name, part in zip("qkv", heads):
                result[to + f"self_attn.{name}_proj.{kind}"] = part.flatten(0, 1)
            up, gate = tensors[at + "feedforward2.0." + kind].chunk(2)
            result[to + "self_attn.output_up." + kind], result[to + "self_attn.output_gate." + kind] = up, gate
        result[to + "self_attn.o_proj.weight"] = tensors[at + "feedforward2.2.weight"]
    return result


def main():
    with torch.no_grad():
        print("parameters of the published size:", sum(p.numel() for p in Published(50304, 768, 24, 24, 32).parameters()))
    C, layers, H, E = 32, 2, 4, 8
    torch.manual_seed(7)
    weights = Published(V, C, layers, H, E).double()
    with torch.no_grad():
        for name, p in weights.named_parameters():
            p.copy_((torch.randn_like(p) * (0.25 if p.dim() > 1 else 0.2) + ("norm" in name or "1.0." in name) *
                     name.endswith("weight") * (p.dim() == 1)).float())
    tokens = torch.randint(0, V, (B, T + 1))
    inputs, targets = tokens[:, :-1], tokens[:, 1:].reshape(-1)
    first = {name: p.detach().float().clone() for name, p in weights.named_parameters()}
    logits = weights(inputs)
    F.cross_entropy(logits.reshape(-1, V), targets).backward()
    golden = {"tokens": tokens.to(torch.int32), "logits": logits.detach().float()}
    golden |= {"gradient." + name: g.float() for name, g in ours(weights, {n: p.grad for n, p in weights.named_parameters()}).items()}

    loss = lambda: F.cross_entropy(weights(inputs).reshape(-1, V), targets)
    golden["losses"] = losses = ten_losses(loss, weights.parameters())
    mixer = log_sum_exp(heads=H, kv_heads=H, head_dim=E, qkv_bias=True, log_values=True, output_glu=True)
    cfg = config((T, V, C), [(mixer, None)] * layers, norm=dict(kind="layer", gain=True, bias=True, eps=1e-5),
                 positions="recurrent")
    write_case("lse_published", cfg, model=ours(weights, first), golden=golden)
    print(f"losses {losses[0]:.4f} -> {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
