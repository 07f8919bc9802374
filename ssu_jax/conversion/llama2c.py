"""llama2.c's .bin (its first version): seven numbers, then float32 weights in a fixed order, without names.

The names given here are those of transformers' Llama where the meaning is the same. The numbers are not touched:
llama2.c rotates neighbouring pairs of the query and key channels where transformers rotates halves, and the
configuration says so (`rope_layout`: "interleaved"), as a model that uses these weights must know.

Source: the public llama2.c project, `export.py` (order of the tensors) and `run.c` (constants 1e-5 and 10000).
"""

import functools
import pathlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ssu_jax.conversion.rules import Shape
from ssu_jax.conversion.tensors import Source, Tensor, read_span
from ssu_jax.types import UserError

_MAGIC_OF_LATER_VERSIONS = 0x616B3432
_HIGHEST = 1 << 24  # of any number of the header
_FLOAT = np.dtype("<f4")


class Header(NamedTuple):
    """The seven int32 at the start. vocab_size is stored negative where the classifier is a tensor of its own."""

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    seq_len: int

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.dim // self.n_heads


def open_file(path: pathlib.Path) -> Source:
    """Raises UserError if the header makes no sense or the file is not just as long as it says."""
    header, is_shared = _read_header(path)
    tensors: dict[str, Tensor] = {}
    end = struct.calcsize("<7i")
    for name, shape in _layout(header, is_shared):
        if name:
            tensors[name] = Tensor(shape, _FLOAT, functools.partial(read_span, path, end, shape, _FLOAT))
        end += 4 * int(np.prod(shape, dtype=np.int64))
    if (size := path.stat().st_size) != end:
        raise UserError(f"{path} is no llama2.c file or damaged: its header means {end} bytes, it has {size}")
    return Source(path, "llama2.c", tensors, _config(header, is_shared), (path,))


def _read_header(path: pathlib.Path) -> tuple[Header, bool]:
    with open(path, "rb") as file:
        content = file.read(28)
    if len(content) < 28:
        raise UserError(f"{path} is no llama2.c file: it has only {len(content)} bytes")
    numbers = list(struct.unpack("<7i", content))
    if numbers[0] == _MAGIC_OF_LATER_VERSIONS:
        raise UserError(f"{path} is of a later version of llama2.c's format: export it again with --version 0")
    is_shared = numbers[5] > 0
    header = Header(*numbers[:5], abs(numbers[5]), numbers[6])
    if not all(0 < number <= _HIGHEST for number in header):
        raise UserError(f"{path} is no llama2.c file: its header reads {tuple(numbers)}")
    if header.dim % header.n_heads or header.n_heads % header.n_kv_heads or header.head_dim % 2:
        raise UserError(
            f"{path} is damaged: {header.dim} channels, {header.n_heads} heads, {header.n_kv_heads} of keys"
        )
    return header, is_shared


def _layout(header: Header, is_shared: bool) -> Iterator[tuple[str, Shape]]:
    """(name, shape) in the file's order; "" for the tables of angles, which follow from the sizes."""
    dim, hidden = header.dim, header.hidden_dim
    key_dim = header.n_kv_heads * header.head_dim
    layers: tuple[tuple[str, Shape], ...] = (
        ("input_layernorm", (dim,)),
        ("self_attn.q_proj", (dim, dim)),
        ("self_attn.k_proj", (key_dim, dim)),
        ("self_attn.v_proj", (key_dim, dim)),
        ("self_attn.o_proj", (dim, dim)),
        ("post_attention_layernorm", (dim,)),
        ("mlp.gate_proj", (hidden, dim)),
        ("mlp.down_proj", (dim, hidden)),
        ("mlp.up_proj", (hidden, dim)),
    )
    yield "model.embed_tokens.weight", (header.vocab_size, dim)
    for part, shape in layers:
        for layer in range(header.n_layers):
            yield f"model.layers.{layer}.{part}.weight", shape
    yield "model.norm.weight", (dim,)
    for _ in ("cosines", "sines"):
        yield "", (header.seq_len, header.head_dim // 2)
    if not is_shared:
        yield "lm_head.weight", (header.vocab_size, dim)


def _config(header: Header, is_shared: bool) -> dict[str, Any]:
    """The config.json that transformers would write, and `rope_layout`."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": header.dim,
        "intermediate_size": header.hidden_dim,
        "num_hidden_layers": header.n_layers,
        "num_attention_heads": header.n_heads,
        "num_key_value_heads": header.n_kv_heads,
        "head_dim": header.head_dim,
        "vocab_size": header.vocab_size,
        "max_position_embeddings": header.seq_len,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_layout": "interleaved",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": is_shared,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
