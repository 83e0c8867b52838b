#!/usr/bin/env python3
"""Writes fuzz/corpus/: small valid files of every format, from which the fuzzers (scripts/fuzz) begin."""
import gzip
import json
import math
import pathlib
import struct
import zipfile

root = pathlib.Path(__file__).resolve().parent.parent
corpus, golden = root / "fuzz/corpus", root / "tests/data/golden"


def write(name, data):
    path = corpus / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def floats(count):
    return struct.pack(f"<{count}f", *(math.sin(i) for i in range(count)))


def safetensors(entries, **metadata):
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, (dtype, shape, values) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


write("safetensors/one", safetensors({"w": ("F32", [2, 3], floats(6)), "b": ("BF16", [1], b"\0\0")}, format="pt"))
write("safetensors/empty", safetensors({}))

for name in ("linear", "kinds2", "kinds4"):
    write(f"torch_file/{name}", (golden / f"torch/{name}.pt").read_bytes())
    with zipfile.ZipFile(golden / f"torch/{name}.pt") as archive:
        write(f"pickle/{name}", archive.read(f"{name}/data.pkl"))


def ctranslate2_text(value):
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


weight = ctranslate2_text("w") + struct.pack("<BII", 2, 2, 1)
write("ctranslate2/first", struct.pack("<II", 1, 1) + weight + struct.pack("<BIhh", 2, 2, -1, 2))
write("ctranslate2/newest", struct.pack("<I", 6) + ctranslate2_text("Spec") + struct.pack("<II", 1, 2) + weight +
      struct.pack("<BIbb", 1, 2, -1, 2) + ctranslate2_text("w_scale") + struct.pack("<BIBIff", 1, 2, 0, 8, 1, 2) +
      struct.pack("<I", 1) + ctranslate2_text("v") + ctranslate2_text("w"))

idx = b"\0\0\x08\x02" + struct.pack(">II", 2, 3) + b"abcdef"
write("idx/plain", idx)
write("idx/packed", gzip.compress(idx, mtime=0))
write("idx/floats", b"\0\0\x0d\x01" + struct.pack(">If", 1, 1.5))

dim, hidden, layers, heads, kv_heads, vocab, context = 8, 4, 2, 4, 2, 3, 5
keys = kv_heads * dim // heads
count = vocab * dim + layers * (2 * dim + 2 * dim * dim + 2 * keys * dim + 3 * dim * hidden) + dim + context * dim // heads
header = struct.pack("<7i", dim, hidden, layers, heads, kv_heads, vocab, context)
write("llama2c/tied", header + floats(count))

write("json/values", '{"a": [1, -2.5e3, true, null, "\\u00e9\\n"], "b": {"c": {}}}')
for config in sorted(golden.glob("*/config.json")):
    write(f"config_json/{config.parent.name}", config.read_bytes())

bpe = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<s>": 3}, "merges": ["a b"], "byte_fallback": False}
unigram = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["\u2581", -2.0], ["a", -3.0]]}
pieces = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
          "vocab": {"[UNK]": 0, "a": 1, "##b": 2}}
added = {"id": 3, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
space = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}


def tokenizer(model, added_tokens=(), normalizer=None, pre=None, decoder=None):
    return json.dumps(dict(version="1.0", truncation=None, padding=None, added_tokens=list(added_tokens),
                           normalizer=normalizer, pre_tokenizer=pre, post_processor=None, decoder=decoder, model=model))


write("tokenizer_json/bpe", tokenizer(bpe, [added], pre=level, decoder=level))
write("tokenizer_json/unigram", tokenizer(unigram, normalizer={"type": "NFKC"}, pre=space, decoder=space))
write("tokenizer_json/wordpiece", tokenizer(pieces, normalizer=bert, pre={"type": "BertPreTokenizer"},
                                           decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}))


# sentencepiece's protobuf: pieces (1: text, score, type), trainer_spec (2), normalizer_spec (3).
def field(number, data):
    return bytes([number << 3 | 2, len(data)]) + data


def piece(text, score, kind):
    return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind]))


for name, kind in (("unigram", 1), ("bpe", 2)):
    model = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("\u2581", -1, 1) + piece("a", -2, 1)
    write(f"sentencepiece/{name}", model + field(2, b"\x18" + bytes([kind])) + field(3, field(1, b"identity")))


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(entries, tensors):
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries))
    for key, value in entries.items():
        out += text(key)
        if isinstance(value, str):
            out += struct.pack("<I", 8) + text(value)
        elif isinstance(value, float):
            out += struct.pack("<If", 6, value)
        elif isinstance(value, int):
            out += struct.pack("<II", 4, value)
        elif isinstance(value[0], str):
            out += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        else:
            kind, code = (6, "f") if isinstance(value[0], float) else (5, "i")
            out += struct.pack("<IIQ", 9, kind, len(value)) + struct.pack(f"<{len(value)}{code}", *value)
    offset = 0
    for name, shape in tensors.items():
        out += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        out += struct.pack("<IQ", 0, offset)
        offset += (4 * math.prod(shape) + 31) // 32 * 32
    out += b"\0" * (-len(out) % 32)
    for shape in tensors.values():
        out += floats(math.prod(shape)) + b"\0" * (-4 * math.prod(shape) % 32)
    return out


keys = {"general.architecture": "llama", "llama.context_length": 8, "llama.embedding_length": 8, "llama.block_count": 1,
        "llama.feed_forward_length": 4, "llama.attention.head_count": 2, "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.dimension_count": 4}
words = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "\u2581", "a"],
         "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -1.0, -2.0], "tokenizer.ggml.token_type": [2, 3, 3, 1, 1],
         "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
tensors = {"token_embd.weight": (8, 5), "output_norm.weight": (8,)}
tensors |= {"blk.0." + name + ".weight": shape for name, shape in {
    "attn_norm": (8,), "attn_q": (8, 8), "attn_k": (8, 4), "attn_v": (8, 4), "attn_output": (8, 8), "ffn_norm": (8,),
    "ffn_gate": (8, 4), "ffn_up": (8, 4), "ffn_down": (4, 8)}.items()}
write("gguf/llama", gguf(keys | words, tensors))
write("gguf/vocabulary", gguf({"general.architecture": "llama"} | words, {}))
write("gguf/empty", gguf({}, {}))

for name in ("chatml", "gemma", "llama2", "mistral3", "constructs"):
    write(f"chat_template/{name}", (golden / f"chat/{name}.jinja").read_bytes())
