"""What the writers of goldens share: tiny descriptions, random weights, ten steps of AdamW, and the files of a case."""
import json
import os

import torch

from torch_model import adamw, shapes, write_safetensors

GOLDEN = os.path.join(os.path.dirname(__file__), "..", "tests", "data", "golden")


def attention(**other):
    return dict(heads=4, kv_heads=4, head_dim=8, qkv_bias=False, out_bias=False, qk_norm=False) | other


def log_sum_exp(**other):
    return dict(heads=4, kv_heads=4, head_dim=8, qkv_bias=False, out_bias=False, log_values=False, head_scale=False,
                decay=False) | other


def gated(**other):
    return dict(gated=True, hidden=48, activation="silu", bias=False) | other


def plain(**other):
    return dict(gated=False, hidden=64, activation="gelu_tanh", bias=False) | other


def config(sizes, layers, tied=True, norm=None, positions="rotary", rotary=None, residual="sequential"):
    """config.json of layers (mixer, mlp); sizes: tokens, vocabulary, width."""
    T, V, C = sizes
    return dict(architectures=["SparsamForCausalLM"], model_type="sparsam", vocab_size=V, hidden_size=C,
                max_position_embeddings=T, num_hidden_layers=len(layers), tie_word_embeddings=tied,
                sparsam=dict(version=1, norm=norm or dict(kind="rms", gain=True, bias=False, eps=1e-5), positions=positions,
                             rotary=rotary or dict(base=10000.0, channels=0, pairing="halves"), residual=residual,
                             layers=[{"log_sum_exp" if a and "decay" in a else "attention": a, "mlp": m} for a, m in layers]))


def random_weights(cfg, deviation):
    """Matrices around 0, the gains of norms around 1."""
    return {key: torch.randn(shape) * deviation if len(shape) > 1 else torch.randn(shape) * 0.2 + key.endswith("norm.weight")
            for key, shape in shapes(cfg)}


def gradients(model):
    return {"gradient." + name: p.grad.float() for name, p in model.named().items()}


def ten_losses(loss, parameters):
    """What loss() is before each of ten steps of AdamW."""
    parameters, losses = list(parameters), []
    optimizer = adamw(parameters, 1e-2, (0.9, 0.95), 1e-8, 0.1)
    for _ in range(10):
        now = loss()
        losses.append(now.item())
        optimizer.zero_grad()
        now.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return torch.tensor(losses)


def between(values, fraction):
    """A float32 in the widest gap near a quantile, so that rounding moves no value across it."""
    ordered = values.flatten().sort().values
    middle = int(fraction * len(ordered))
    near = ordered[max(middle - 20, 0) : middle + 20]
    widest = (near[1:] - near[:-1]).argmax()
    return float(((near[widest] + near[widest + 1]) / 2).float())


def write_json(path, value, indent=None):
    with open(path, "w") as file:
        json.dump(value, file, indent=indent)
        file.write("\n")


def write_case(case, cfg, **files):
    """config.json and, for each of `files`, NAME.safetensors; returns their directory."""
    directory = os.path.join(GOLDEN, case)
    os.makedirs(directory, exist_ok=True)
    write_json(os.path.join(directory, "config.json"), cfg, indent=1)
    for name, tensors in files.items():
        write_safetensors(os.path.join(directory, name + ".safetensors"), tensors)
    return directory
