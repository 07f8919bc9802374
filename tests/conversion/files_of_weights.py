"""The committed tiny weights of every kind; files written byte by byte, sound ones and damaged ones."""

import json
import pathlib
import struct

import numpy as np

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
WEIGHTS = ("model.safetensors", "weights.npz")


def published_fixtures() -> list[pathlib.Path]:
    """Every committed file of tiny published weights: tests/fixtures/KIND/.../model.safetensors or weights.npz."""
    return sorted(path for name in WEIGHTS for path in FIXTURES.rglob(name))


def kind_of(path: pathlib.Path) -> str:
    return path.relative_to(FIXTURES).parts[0]


def safetensors_bytes(header: dict | str | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of a header as given, be it right or wrong."""
    if isinstance(header, dict):
        header = json.dumps(header)
    encoded = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def floats(shape: list[int], start: int, end: int) -> dict:
    """One entry of a header."""
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


def llama2c_bytes(
    sizes=(8, 12, 2, 4, 2, 11, 6), shared: bool = True, seed: int = 0
) -> tuple[bytes, dict[str, np.ndarray]]:
    """(a file, its tensors by transformers' names), from the description of the format, not from the reader.

    sizes: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len.
    """
    dim, hidden, layers, heads, kv_heads, vocabulary, length = sizes
    rng, head = np.random.default_rng(seed), dim // heads
    draw = lambda *shape: rng.normal(size=shape).astype("<f4")  # noqa: E731
    stacks = {
        "input_layernorm": draw(layers, dim),
        "self_attn.q_proj": draw(layers, dim, dim),
        "self_attn.k_proj": draw(layers, kv_heads * head, dim),
        "self_attn.v_proj": draw(layers, kv_heads * head, dim),
        "self_attn.o_proj": draw(layers, dim, dim),
        "post_attention_layernorm": draw(layers, dim),
        "mlp.gate_proj": draw(layers, hidden, dim),
        "mlp.down_proj": draw(layers, dim, hidden),
        "mlp.up_proj": draw(layers, hidden, dim),
    }
    table, norm, angles = draw(vocabulary, dim), draw(dim), draw(2, length, head // 2)
    classifier = draw(vocabulary, dim)
    header = struct.pack("<7i", dim, hidden, layers, heads, kv_heads, vocabulary if shared else -vocabulary, length)
    parts = [table, *stacks.values(), norm, angles, *([] if shared else [classifier])]
    named = {"model.embed_tokens.weight": table, "model.norm.weight": norm}
    named |= {f"model.layers.{i}.{part}.weight": stack[i] for part, stack in stacks.items() for i in range(layers)}
    if not shared:
        named["lm_head.weight"] = classifier
    return header + b"".join(part.tobytes() for part in parts), named
