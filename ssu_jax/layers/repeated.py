"""Blocks of one shape, run in turn."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def in_turn(blocks: Sequence[nn.Module], x: Any, *args: Any, scan: bool = False) -> Any:
    """block(x, *args) of the first block, of the second on what comes out, and so on.

    blocks: bound modules of one class and one configuration, whose answer has the shape and type of `x`.
    scan: one loop over their stacked parameters, so that a block is compiled once however many there are. The
    parameters keep their names; what it costs is a copy of them. What blocks sow is lost there.
    """
    if not scan or len(blocks) < 2 or blocks[0].is_initializing():
        for block in blocks:
            x = block(x, *args)
        return x
    block = blocks[0].clone(parent=None, name=None)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(each.variables["params"] for each in blocks))
    return jax.lax.scan(lambda x, params: (block.apply({"params": params}, x, *args), None), x, stacked)[0]
