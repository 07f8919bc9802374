"""Names of blocks that run as one loop (`model.scan_blocks`): "blocks/x" [n, ...] for "block_0/x", "block_1/x", ..."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_STACK = "blocks"


def is_stack(name: str) -> bool:
    """Whether the leaf of this name holds a parameter of several blocks, along its first axis."""
    return _STACK in name.split("/")


def entries(name: str, count: int) -> list[str]:
    """The names that the `count` entries of a stack have where blocks are written out; of another leaf, its own."""
    if not is_stack(name):
        return [name]
    return ["/".join(f"block_{i}" if part == _STACK else part for part in name.split("/")) for i in range(count)]


def stacked(leaves: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The leaves under the names of `wanted`: those of single blocks joined where a stack is wanted of them.

    wanted: name -> shape. A stack of which an entry is missing, or has another shape, is left out.
    """
    found = dict(leaves)
    for name, shape in wanted.items():
        parts = entries(name, shape[0] if shape else 0)
        if is_stack(name) and all(part in found and tuple(found[part].shape) == shape[1:] for part in parts):
            found[name] = np.stack([np.asarray(found.pop(part)) for part in parts])
    return found
