"""A Llama of some 140,000 random weights, in Hugging Face's layout: what it says is word salad, but Ollama loads it
like any other model and streams it token by token.

Its answers are made of whole English words: the first dimension of every hidden state is made a constant, and the
output layer uses it as a bias against all other tokens. Bytes alone would be held back by Ollama until they make a
character.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

ENGLISH = """
the a of and to in is it that for on with as was are be this by from or have an they which one you were all her would
there their we him been has when who will no more if out so said what up its about into than them can only
"""
WORDS = ENGLISH.split()
SPECIALS = ("<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>")
SPACE = "Ġ"  # as byte-level tokenizers write it

HIDDEN, LAYERS, HEADS, CONTEXT = 64, 2, 4, 4096
# How Llama 3 cuts text into words; Ollama's converter knows a tokenizer by this expression.
_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACE = r"|\s*[\r\n]+|\s+(?!\S)|\s+"


def write_tiny_llama(folder: Path) -> None:
    """Weights, tokenizer and configuration; the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = _vocabulary()
    size = len(vocabulary) + len(SPECIALS)
    _save(folder / "model.safetensors", _weights(vocabulary, size))
    _write(folder / "tokenizer.json", _tokenizer(vocabulary, merges))
    _write(
        folder / "tokenizer_config.json", {"add_bos_token": True, "bos_token": SPECIALS[0], "eos_token": SPECIALS[1]}
    )
    _write(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "vocab_size": size,
            "bos_token_id": len(vocabulary),
            "eos_token_id": len(vocabulary) + 1,
        },
    )


def _vocabulary() -> tuple[list[str], list[str]]:
    """One token per byte, then every beginning of a word, with the merges that lead there."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    vocabulary, merges = [shown[byte] for byte in range(256)], []
    for word in WORDS:
        token = SPACE
        for letter in word:
            if token + letter not in vocabulary:
                vocabulary.append(token + letter)
                merges.append(f"{token} {letter}")
            token += letter
    return vocabulary, merges


def _tokenizer(vocabulary: list[str], merges: list[str]) -> dict[str, object]:
    added = [
        {"id": len(vocabulary) + n, "content": special, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for n, special in enumerate(SPECIALS)
    ]
    split = {"type": "Split", "pattern": {"Regex": _WORD + _SPACE}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {token: n for n, token in enumerate(vocabulary)}, "merges": merges},
    }


def _weights(vocabulary: list[str], size: int) -> dict[str, npt.NDArray[np.float32]]:
    dice = np.random.default_rng(7)

    def matrix(rows: int, columns: int, spread: float) -> npt.NDArray[np.float32]:
        return (spread * dice.standard_normal((rows, columns))).astype(np.float32)

    embedded, output = matrix(size, HIDDEN, 1.0), matrix(size, HIDDEN, 0.5)
    embedded[:, 0] = 4.0
    output[:, 0] = -4.0
    output[[vocabulary.index(SPACE + word) for word in WORDS], 0] = 1.0
    weights = {"model.embed_tokens.weight": embedded, "lm_head.weight": output}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        for part in "qkvo":
            weights[f"{name}.self_attn.{part}_proj.weight"] = matrix(HIDDEN, HIDDEN, 0.15)
        for part in ("gate", "up"):
            weights[f"{name}.mlp.{part}_proj.weight"] = matrix(2 * HIDDEN, HIDDEN, 0.15)
        weights[f"{name}.mlp.down_proj.weight"] = matrix(HIDDEN, 2 * HIDDEN, 0.1)
        for part in ("input", "post_attention"):
            weights[f"{name}.{part}_layernorm.weight"] = np.ones(HIDDEN, np.float32)
    weights["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    return weights


def _save(path: Path, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """In the safetensors format: the length of a JSON header, the header, the bytes that it points into."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for tensor in tensors.values():
            file.write(tensor.tobytes())


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
