"""Sizes of the causal language models: GPT-2's layout and Llama's."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class CausalLMConfig:
    """A decoder-only transformer. The defaults are GPT-2's small one.

    gpt2:  learned positions, layer norm, biases, queries, keys and values in one projection (Radford et al. 2019).
    llama: rotary positions, RMS norm, no biases, grouped keys and values, gated feed-forward (Touvron et al. 2023).
    """

    layout: str = option("gpt2", "which family", choices=("gpt2", "llama"))
    vocab_size: int = option(50257, "rows of the word table", low=1, high=1 << 24)
    depth: int = option(12, "transformer blocks", low=1, high=512)
    width: int = option(768, "token width", low=1, high=1 << 17)
    num_heads: int = option(12, "attention heads", low=1, high=4096)
    num_kv_heads: int = option(12, "heads of keys and values; num_heads / num_kv_heads of queries share one", low=1)
    hidden: int = option(3072, "hidden width of the feed-forward part", low=1, high=1 << 20)
    positions: int = option(1024, "longest sequence", low=1, high=1 << 24)
    norm_epsilon: float = option(1e-5, "epsilon of the norms", low=0.0)
    rope_theta: float = option(10000.0, "llama: base of the rotary wavelengths", low=1.0)
    rope_layout: str = option("halves", "llama: which numbers of a head turn together, i and i + k / 2 (transformers) "
                                        "or 2i and 2i + 1 (llama2.c)", choices=("halves", "interleaved"))  # fmt: skip
    tied_head: bool = option(True, "the word table is the output layer too")
    activation: str = option("gelu_tanh", "of the feed-forward part", choices=("gelu_tanh", "gelu", "relu", "silu"))
    start_id: int = option(50256, "id that stands before a text", low=0)
    end_id: int = option(50256, "id that ends a text", low=0)


def _llama(**sizes) -> CausalLMConfig:
    return CausalLMConfig(layout="llama", activation="silu", **sizes)


# The sizes in the published config.json of each; of stories260k, in the header of its .bin file.
VARIANTS = {
    "gpt2": CausalLMConfig(),
    "distilgpt2": CausalLMConfig(depth=6),
    "gpt2_medium": CausalLMConfig(depth=24, width=1024, num_heads=16, num_kv_heads=16, hidden=4096),
    "gpt2_large": CausalLMConfig(depth=36, width=1280, num_heads=20, num_kv_heads=20, hidden=5120),
    "smollm2_135m": _llama(vocab_size=49152, depth=30, width=576, num_heads=9, num_kv_heads=3, hidden=1536,
                           positions=8192, rope_theta=100000.0, start_id=0, end_id=0),
    "smollm2_360m": _llama(vocab_size=49152, depth=32, width=960, num_heads=15, num_kv_heads=5, hidden=2560,
                           positions=8192, rope_theta=100000.0, start_id=0, end_id=0),
    # Its training texts are told apart by the start token alone, so that is what it ends a story with.
    "stories260k": _llama(vocab_size=512, depth=5, width=64, num_heads=8, num_kv_heads=4, hidden=172, positions=512,
                          rope_layout="interleaved", start_id=1, end_id=1),
}  # fmt: skip
