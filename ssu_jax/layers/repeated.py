"""Blocks of one shape, run in turn: written out, or as one loop, which is compiled once however many there are."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def in_turn(blocks: Sequence[nn.Module], x: Any, *args: Any, scan: bool = False) -> Any:
    """block(x, *args) of the first block, of the second on what comes out, and so on.

    blocks: bound modules of one class and one configuration, whose answer has the shape and type of `x`.
    scan: one loop over their parameters, which keep their names and are copied into stacks. What blocks sow is lost
    there. For what learns see `stacked`: an optimizer has work with every name.
    """
    if not scan or len(blocks) < 2 or blocks[0].is_initializing():
        for block in blocks:
            x = block(x, *args)
        return x
    block = blocks[0].clone(parent=None, name=None)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(each.variables["params"] for each in blocks))
    return jax.lax.scan(lambda x, params: (block.apply({"params": params}, x, *args), None), x, stacked)[0]


def stacked(block: nn.Module, count: int, x: Any) -> Any:
    """As `in_turn` of `count` such blocks, as one loop whose parameters are stacks, under the names of one block.

    block: a module whose answer has the shape and type of `x`; each entry of a stack begins with a key of its own.
    """

    def step(block: nn.Module, x: Any, _: None) -> tuple[Any, None]:
        return block(x), None

    loop = nn.scan(step, variable_axes={"params": 0}, split_rngs={"params": True}, length=count)
    return loop(block, x, None)[0]
