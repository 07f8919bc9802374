"""The sizes of stored weights compared with those that a configuration asks for, before any weight is read."""

import pathlib
from typing import Any

import flax.traverse_util

from ssu_jax.types import UserError

Shapes = dict[str, tuple[int, ...]]
_NUM_NAMED = 3


def flat(tree: dict[str, Any]) -> Shapes:
    """Name -> shape of a nested dict of arrays, or of anything that has a shape."""
    return {name: tuple(leaf.shape) for name, leaf in flax.traverse_util.flatten_dict(tree, sep="/").items()}


def check(found: Shapes, wanted: Shapes, place: pathlib.Path) -> None:
    """Raises UserError naming the first weights that are not of the wanted shape, missing or not wanted."""
    differing = [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]
    if differing:
        first = ", ".join(
            f"{name} is {found.get(name, 'missing')}, wanted {wanted.get(name, 'none')}"
            for name in differing[:_NUM_NAMED]
        )
        raise UserError(
            f"checkpoint {place} is of another model size than its config.json: {first} ({len(differing)} differ): "
            "give the checkpoint its own configuration back"
        )
