"""The experts' weights and what they compute: on slots [e, p, d], or on rows sorted by expert."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from ssu_jax.layers.moe import grouped

HIDDEN = "moe_hidden"  # for a remat policy: the hidden activations


class Network(NamedTuple):
    """contract(gelu(expand(x + prompt))) for each expert, or a slice of it: some experts, or some hidden units."""

    expand: Any  # [e, d, h]
    expand_bias: Any  # [e, h]
    contract: Any  # [e, h, d]
    contract_bias: Any  # [e, d]
    prompts: Any  # [e, d]

    def __call__(self, x: Float[Array, "e p d"]) -> Float[Array, "e p d"]:
        """Expert i on row block i."""
        hidden = jax.nn.gelu(grouped.slots(x + self.prompts[:, None], self.expand, self.expand_bias))
        hidden = checkpoint_name(hidden, HIDDEN)
        return grouped.slots(hidden, self.contract, self.contract_bias)

    def rows(self, x: Float[Array, "s d"], sizes: Int[Array, " e"], product: Callable) -> Float[Array, "s d"]:
        """Expert i on the `sizes[i]` rows after those of the experts before; `product` as in grouped.py."""
        x = x + grouped.rows_of(self.prompts, sizes, x.shape[0])
        hidden = jax.nn.gelu(product(x, self.expand, self.expand_bias, sizes))
        hidden = checkpoint_name(hidden, HIDDEN)
        return product(hidden, self.contract, self.contract_bias, sizes)
