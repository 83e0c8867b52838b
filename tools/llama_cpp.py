#!/usr/bin/python3
"""What llama.cpp computes for a GGUF file: the judge of the files that sparsam writes, never a dependency.

llama.cpp comes from the npm package node-llama-cpp (npm install node-llama-cpp), whose prebuilt libraries this drives;
the structures below are those of llama.h in its release v0.5.0. Results are one JSON object on standard output.

    tools/llama_cpp.py [--package node_modules] logits     MODEL.gguf --ids 1,2,3 --out logits.f32
    tools/llama_cpp.py [--package node_modules] greedy     MODEL.gguf --prompt "Once upon a time" --tokens 60
    tools/llama_cpp.py [--package node_modules] perplexity MODEL.gguf --data text.txt --context 128
    tools/llama_cpp.py [--package node_modules] tokenize   MODEL.gguf --data text.txt

--package is the node_modules folder that holds node-llama-cpp; without it the environment's NODE_LLAMA_CPP says so.
Keys and values are cached in f32 and attention is computed plainly, so that only the weights are rounded.
"""
import argparse
import ctypes
import functools
import glob
import json
import math
import os
import sys
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int32, c_int8, c_size_t, c_uint32, c_void_p

import numpy


class ModelParams(ctypes.Structure):
    _fields_ = [("devices", c_void_p), ("tensor_buft_overrides", c_void_p), ("n_gpu_layers", c_int32),
                ("split_mode", c_int32), ("load_mode", c_int32), ("lazy_mode", c_int32), ("main_gpu", c_int32),
                ("tensor_split", c_void_p), ("progress_callback", c_void_p), ("progress_user_data", c_void_p),
                ("kv_overrides", c_void_p), ("vocab_only", c_bool), ("check_tensors", c_bool),
                ("use_extra_bufts", c_bool), ("no_host", c_bool), ("no_alloc", c_bool), ("load_mtp", c_bool)]


class ContextParams(ctypes.Structure):
    _fields_ = [("n_ctx", c_uint32), ("n_batch", c_uint32), ("n_ubatch", c_uint32), ("n_seq_max", c_uint32),
                ("n_rs_seq", c_uint32), ("n_outputs_max", c_uint32), ("n_outputs_max_per_seq", c_uint32),
                ("n_threads", c_int32), ("n_threads_batch", c_int32), ("ctx_type", c_int32),
                ("rope_scaling_type", c_int32), ("pooling_type", c_int32), ("attention_type", c_int32),
                ("flash_attn_type", c_int32), ("rope_freq_base", c_float), ("rope_freq_scale", c_float),
                ("yarn_ext_factor", c_float), ("yarn_attn_factor", c_float), ("yarn_beta_fast", c_float),
                ("yarn_beta_slow", c_float), ("yarn_orig_ctx", c_uint32), ("defrag_thold", c_float),
                ("cb_eval", c_void_p), ("cb_eval_user_data", c_void_p), ("type_k", c_int32), ("type_v", c_int32),
                ("abort_callback", c_void_p), ("abort_callback_data", c_void_p), ("embeddings", c_bool),
                ("offload_kqv", c_bool), ("no_perf", c_bool), ("op_offload", c_bool), ("swa_full", c_bool),
                ("kv_unified", c_bool), ("samplers", c_void_p), ("n_samplers", c_size_t), ("ctx_other", c_void_p)]


class Batch(ctypes.Structure):
    _fields_ = [("n_tokens", c_int32), ("token", POINTER(c_int32)), ("embd", c_void_p), ("pos", POINTER(c_int32)),
                ("n_seq_id", POINTER(c_int32)), ("seq_id", POINTER(POINTER(c_int32))), ("logits", POINTER(c_int8))]


@functools.lru_cache
def load_library(package, verbose):
    found = glob.glob(os.path.join(package, "@node-llama-cpp", "linux-x64", "bins", "linux-x64", "libllama.v*.so"))
    if not found:
        sys.exit(f"{package}: expected @node-llama-cpp/linux-x64 in it (npm install node-llama-cpp)")
    folder = os.path.dirname(found[0])
    ggml = ctypes.CDLL(glob.glob(os.path.join(folder, "libggml.v*.so"))[0], mode=ctypes.RTLD_GLOBAL)
    llama = ctypes.CDLL(found[0])
    ggml.ggml_backend_load_all_from_path(folder.encode())
    for name, result, arguments in [
        ("llama_model_default_params", ModelParams, []),
        ("llama_context_default_params", ContextParams, []),
        ("llama_model_load_from_file", c_void_p, [c_char_p, ModelParams]),
        ("llama_init_from_model", c_void_p, [c_void_p, ContextParams]),
        ("llama_model_get_vocab", c_void_p, [c_void_p]),
        ("llama_vocab_n_tokens", c_int32, [c_void_p]),
        ("llama_vocab_bos", c_int32, [c_void_p]),
        ("llama_vocab_get_add_bos", c_bool, [c_void_p]),
        ("llama_tokenize", c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
        ("llama_detokenize", c_int32, [c_void_p, POINTER(c_int32), c_int32, c_char_p, c_int32, c_bool, c_bool]),
        ("llama_batch_init", Batch, [c_int32, c_int32, c_int32]),
        ("llama_decode", c_int32, [c_void_p, Batch]),
        ("llama_get_logits_ith", POINTER(c_float), [c_void_p, c_int32]),
        ("llama_get_memory", c_void_p, [c_void_p]),
        ("llama_memory_clear", None, [c_void_p, c_bool]),
        ("llama_log_set", None, [c_void_p, c_void_p]),
    ]:
        function = getattr(llama, name)
        function.restype, function.argtypes = result, arguments
    if not verbose:
        llama.silent = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)(lambda level, text, data: None)
        llama.llama_log_set(ctypes.cast(llama.silent, c_void_p), None)
    return llama


class Peer:
    """One model in llama.cpp with a context of `positions`; `fast`: in pieces of 512 tokens, the cache in f16
    (attention stays plain: for small heads its flash attention is many times slower)."""

    def __init__(self, package, path, positions, verbose, fast=False):
        self.llama = load_library(package, verbose)
        params = self.llama.llama_model_default_params()
        params.use_extra_bufts = False  # weights as the file holds them
        self.model = self.llama.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            sys.exit(f"{path}: llama.cpp does not load it (--verbose says why)")
        self.vocab = self.llama.llama_model_get_vocab(self.model)
        self.size = self.llama.llama_vocab_n_tokens(self.vocab)
        self.positions = positions
        context = self.llama.llama_context_default_params()
        context.n_ctx = context.n_batch = context.n_ubatch = positions
        context.n_threads = context.n_threads_batch = 1  # more would spin where others work
        context.flash_attn_type = 0
        if fast:
            context.n_batch = context.n_ubatch = 512
        else:
            context.type_k = context.type_v = 0  # f32
        self.context = self.llama.llama_init_from_model(self.model, context)
        if not self.context:
            sys.exit(f"{path}: llama.cpp makes no context for it (--verbose says why)")
        self.batch = self.llama.llama_batch_init(positions, 0, 1)

    def tokenize(self, text, special=True):
        data = text.encode() if isinstance(text, str) else text
        ids = (c_int32 * (len(data) + 16))()
        count = self.llama.llama_tokenize(self.vocab, data, len(data), ids, len(ids), special, True)
        if count < 0:
            sys.exit(f"llama.cpp cannot tokenize the text ({count})")
        return list(ids[:count])

    def detokenize(self, ids):
        text = ctypes.create_string_buffer(64 * len(ids) + 64)
        count = self.llama.llama_detokenize(self.vocab, (c_int32 * len(ids))(*ids), len(ids), text, len(text), False,
                                            True)
        return text.raw[:count].decode("utf-8", "replace")

    def forward(self, ids, start=0):
        """Logits (ids, vocabulary) after each of the ids, which stand at positions start, start + 1, ..."""
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i] = token, start + i
            self.batch.n_seq_id[i], self.batch.seq_id[i][0], self.batch.logits[i] = 1, 0, 1
        if start == 0:
            self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), True)
        if self.llama.llama_decode(self.context, self.batch) != 0:
            sys.exit("llama.cpp cannot decode the tokens")
        rows = [numpy.ctypeslib.as_array(self.llama.llama_get_logits_ith(self.context, i), (self.size,))
                for i in range(len(ids))]
        return numpy.array(rows)


def greedy(peer, ids, tokens):
    out, logits = [], peer.forward(ids)[-1]
    for _ in range(tokens):
        out.append(int(numpy.argmax(logits)))
        if len(ids) + len(out) >= peer.positions:
            break
        logits = peer.forward(out[-1:], len(ids) + len(out) - 1)[0]
    return out


def perplexity(peer, tokens, context, forward=None):
    """llama-perplexity's protocol: windows side by side, of each the second half is scored. `forward` in place of the
    peer's own: from the ids of a window to the logits of all of them."""
    bos = peer.llama.llama_vocab_bos(peer.vocab) if peer.llama.llama_vocab_get_add_bos(peer.vocab) else None
    nats, count, first = 0.0, 0, context // 2
    for begin in range(0, len(tokens) - context + 1, context):
        window = tokens[begin:begin + context]
        if bos is not None:
            window = [bos] + window[1:]
        logits = (forward or peer.forward)(window)[first:-1].astype(numpy.float64)
        targets = tokens[begin + first + 1:begin + context]
        top = logits.max(axis=1)
        sums = numpy.exp(logits - top[:, None]).sum(axis=1)
        nats += float((top + numpy.log(sums) - logits[numpy.arange(len(targets)), targets]).sum())
        count += len(targets)
    if count == 0:
        sys.exit(f"{len(tokens)} tokens, expected at least one window of {context}")
    return {"tokens": count, "nats_per_token": nats / count, "perplexity": math.exp(nats / count)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default=os.environ.get("NODE_LLAMA_CPP"))
    parser.add_argument("--verbose", action="store_true", help="llama.cpp's own messages on standard error")
    parser.add_argument("what", choices=["logits", "greedy", "perplexity", "tokenize"])
    parser.add_argument("model")
    parser.add_argument("--ids", help="token ids: 1,2,3")
    parser.add_argument("--prompt")
    parser.add_argument("--data", help="a file of text")
    parser.add_argument("--out", help="logits: rows of 32-bit floats")
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--context", type=int, default=512)
    flags = parser.parse_args()
    if not flags.package:
        sys.exit("say where node_modules with node-llama-cpp is: --package or NODE_LLAMA_CPP")
    peer = Peer(flags.package, flags.model, flags.context, flags.verbose)
    if flags.data:
        with open(flags.data, "rb") as file:
            text = file.read()
    if flags.what == "perplexity":
        result = perplexity(peer, peer.tokenize(text), flags.context)
    elif flags.what == "tokenize":
        result = {"ids": peer.tokenize(text)}
    else:
        ids = [int(i) for i in flags.ids.split(",")] if flags.ids else peer.tokenize(flags.prompt)
        if flags.what == "greedy":
            out = greedy(peer, ids, flags.tokens)
            result = {"prompt": ids, "ids": out, "text": peer.detokenize(out)}
        else:
            peer.forward(ids).tofile(flags.out)
            result = {"positions": len(ids), "vocab": peer.size}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
