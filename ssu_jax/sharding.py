"""The device mesh and where arrays lie on it. This module alone names mesh axes.

Parameters are replicated, the batch is split over `data`. With one device every helper does nothing:
the mesh is None and so are the shardings, which `jax.jit` and `jax.device_put` take as "where it is".
The axes are Auto: `jax.make_mesh` would make Explicit ones, and then a sharding is part of an array's type.
"""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssu_jax.types import UserError

AXES = ("data",)


def make_mesh() -> Mesh | None:
    """A mesh over all devices, or None where there is only one."""
    if jax.device_count() == 1:
        return None
    return jax.make_mesh((jax.device_count(),), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def replicated(mesh: Mesh | None) -> NamedSharding | None:
    """The sharding of parameters and scalars: every device holds all of it."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh | None) -> NamedSharding | None:
    """The sharding of a batch: axis b is split over `data`."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(batch_size: int, mesh: Mesh | None) -> None:
    """Raises UserError unless every device gets the same number of clips."""
    if mesh is not None and batch_size % mesh.shape["data"]:
        raise UserError(
            f"config: train.batch_size ({batch_size}) must be a multiple of the {mesh.shape['data']} devices: "
            f"take {batch_size + -batch_size % mesh.shape['data']}"
        )


def place(tree: Any, sharding: NamedSharding | None) -> Any:
    """The tree as arrays on the devices."""
    return jax.device_put(tree, sharding)
