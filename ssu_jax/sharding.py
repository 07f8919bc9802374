"""The device mesh and where arrays lie on it. This module alone names mesh axes.

    data, fsdp, expert   split the batch: every device has clips of its own
    fsdp                 cuts every matrix along its largest axis that it divides; gathered where it is used
    expert               cuts the stacked experts
    tensor               cuts the hidden axes of attention and feed-forward layers

Moments and averages lie as their parameters do, vectors and scalars are whole everywhere. Which axes of a parameter
are hidden ones or experts is told by its name (RULES); a mesh axis that does not divide the axis of an array leaves
it whole. With one device every helper does nothing: the mesh is None and so are the shardings, which `jax.jit` and
`jax.device_put` take as "where it is". The axes are Auto: `jax.make_mesh` would make Explicit ones, and then a
sharding is part of an array's type.
"""

import contextlib
import fnmatch
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from ssu_jax.types import UserError

AXES = DATA, FSDP, EXPERT, TENSOR = ("data", "fsdp", "expert", "tensor")
BATCH_AXES = (DATA, FSDP, EXPERT)
_AXIS_TYPES = (AxisType.Auto,) * len(AXES)

# Pattern of a parameter's name -> mesh axes of its last array axes. The first that fits counts. Column-parallel
# layers come before row-parallel ones, so that what lies between them is never gathered.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    ("*/expand_kernel", (EXPERT, None, TENSOR)),
    ("*/expand_bias", (EXPERT, TENSOR)),
    ("*/contract_kernel", (EXPERT, TENSOR, None)),
    ("*/contract_bias", (EXPERT, None)),
    ("*ttention*/query/kernel", (None, TENSOR)),
    ("*ttention*/key/kernel", (None, TENSOR)),
    ("*ttention*/value/kernel", (None, TENSOR)),
    ("*ttention*/out/kernel", (TENSOR, None)),
    ("*/mlp/fc1/kernel", (None, TENSOR)),
    ("*/mlp/depthwise/kernel", (TENSOR,)),
    ("*/mlp/fc2/kernel", (TENSOR, None)),
    ("*/FeedForward_*/Dense_0/kernel", (None, TENSOR)),
    ("*/FeedForward_*/Dense_1/kernel", (TENSOR, None)),
    ("P_*/hidden/kernel", (None, TENSOR)),
    ("P_*/out/kernel", (TENSOR, None)),
    ("fusion/hidden/kernel", (None, TENSOR)),
    ("fusion/out/kernel", (TENSOR, None)),
    ("*/feed/up/kernel", (None, TENSOR)),
    ("*/feed/gate/kernel", (None, TENSOR)),
    ("*/feed/down/kernel", (TENSOR, None)),
)


def make_mesh(sizes: Sequence[int] = (-1, 1, 1, 1), devices: Sequence[Any] | None = None) -> Mesh | None:
    """A mesh over all devices, or None where this process has only one.

    sizes: of data, fsdp, expert, tensor; -1 in one of them is what the others leave.  devices: default all of this
    process's backend; of others, one too makes a mesh. Raises UserError unless the sizes multiply to the number of
    devices. Devices of several slices (pods joined by a slower network) are cut between them along `data` alone.
    """
    is_own, devices = devices is None, jax.devices() if devices is None else devices
    sizes = _filled(tuple(sizes), len(devices))
    if is_own and len(devices) == 1:
        return None
    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    if num_slices == 1:
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    else:
        if sizes[0] % num_slices:
            raise UserError(
                f"config: mesh.data is {sizes[0]}, the devices lie in {num_slices} slices: "
                f"take a multiple of {num_slices}, for only data is cut between slices"
            )
        inside = (sizes[0] // num_slices, *sizes[1:])
        grid = mesh_utils.create_hybrid_device_mesh(
            inside, (num_slices, 1, 1, 1), devices, allow_split_physical_axes=True
        )
    return Mesh(grid, AXES, axis_types=_AXIS_TYPES)


def current_mesh() -> AbstractMesh | None:
    """The mesh that `within` has set for what is traced now; None outside of it, and so on one device."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or not set(AXES) <= set(mesh.axis_names) else mesh


def within(mesh: Mesh | None, function: Callable) -> Callable:
    """The function, called with `mesh` as the current one."""
    if mesh is None:
        return function

    @functools.wraps(function)
    def call(*args, **kwargs):
        with using(mesh):
            return function(*args, **kwargs)

    return call


def using(mesh: Mesh | None) -> contextlib.AbstractContextManager:
    """A context in which `mesh` is the current one."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def replicated(mesh: Mesh | None) -> NamedSharding | None:
    """The sharding of scalars: every device holds all of it."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh | None) -> NamedSharding | None:
    """The sharding of a batch: axis b is split over `data`, `fsdp` and `expert`."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_ways(mesh: Mesh | AbstractMesh | None) -> int:
    """How many parts a batch is split into."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def spec_of(name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Where a parameter lies: its rule, then `fsdp` on the largest axis that is still free and that it divides.

    Vectors stay whole unless a rule names them: a gather of a few numbers costs as much as one of many.
    """
    rule = next((axes for pattern, axes in RULES if fnmatch.fnmatchcase(name, pattern)), ())
    spec: list[str | None] = [None] * (len(shape) - len(rule)) + list(rule)
    spec = [axis if axis and shape[i] % mesh.shape[axis] == 0 else None for i, axis in enumerate(spec[: len(shape)])]
    parts = mesh.shape[FSDP]
    free = [i for i, axis in enumerate(spec) if axis is None and shape[i] % parts == 0]
    if parts > 1 and len(shape) > 1 and free:
        spec[max(free, key=lambda i: shape[i])] = FSDP
    return PartitionSpec(*(axis if axis and mesh.shape[axis] > 1 else None for axis in spec))


def shardings_of(tree: Any, mesh: Mesh | AbstractMesh | None) -> Any:
    """A tree of shardings for a tree of arrays or shapes that holds parameters, moments, averages, scalars; or None.

    A leaf is named by the keys of the dicts that it lies in, which moments share with their parameters.
    """
    if mesh is None:
        return None

    def of(path, leaf) -> NamedSharding:
        return NamedSharding(mesh, spec_of(_name_of(path), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(of, tree)


def used_shardings(params: Any, mesh: Mesh) -> Any:
    """As `shardings_of`, for parameters as they are computed with (`gathered`): `fsdp` cuts none of them."""

    def of(path, leaf) -> NamedSharding:
        return NamedSharding(mesh, _joined(spec_of(_name_of(path), leaf.shape, mesh)))

    return jax.tree_util.tree_map_with_path(of, params)


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """The shapes with the shardings on them; as they are where there are none."""
    if shardings is None:
        return shapes
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )


def is_cut(shardings: Any) -> bool:
    """Whether any leaf lies in parts."""
    return any(not sharding.is_fully_replicated for sharding in jax.tree.leaves(shardings))


def batch_constrained(tree: Any, axis: int = 0) -> Any:
    """The tree with array axis `axis` of every leaf split as a batch; nothing without a current mesh."""
    if current_mesh() is None:
        return tree
    spec = PartitionSpec(*[None] * axis, BATCH_AXES)
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, spec), tree)


def gathered(params: Any) -> Any:
    """The parameters as they are computed with: what `fsdp` has cut is joined, the gradient is cut again.

    Without this the partitioner cuts activations as the weights lie, and moves them between every two layers. Nothing
    without a current mesh. To be called on the arguments of what is differentiated.
    """
    mesh = current_mesh()
    if mesh is None or mesh.shape[FSDP] == 1:
        return params

    def of(path, leaf):
        name = _name_of(path)
        stored = spec_of(name, leaf.shape, mesh)
        return _regathered(leaf, stored, name.endswith("/embedding")) if FSDP in stored else leaf

    return jax.tree_util.tree_map_with_path(of, params)


def _regathered(leaf: Any, stored: PartitionSpec, is_table: bool) -> Any:
    """is_table: looked up by row. Its gradient is summed whole: cut at once, it would have every token cut alike."""
    used = _joined(stored)

    @jax.custom_vjp
    def join(x):
        return jax.lax.with_sharding_constraint(x, used)

    def cut(_, gradient):
        if is_table:
            gradient = jax.lax.with_sharding_constraint(gradient, used)
        return (jax.lax.with_sharding_constraint(gradient, stored),)

    join.defvjp(lambda x: (join(x), None), cut)
    return join(leaf)


def _joined(stored: PartitionSpec) -> PartitionSpec:
    return PartitionSpec(*(None if axis == FSDP else axis for axis in stored))


def check_batch_size(batch_size: int, mesh: Mesh | AbstractMesh | None, num_slices: int = 1) -> None:
    """Raises UserError unless every device gets the same number of clips of each of `num_slices` slices."""
    wanted = batch_ways(mesh) * num_slices
    if batch_size % wanted:
        told = "devices" if num_slices == 1 else f"devices times train.grad_accumulation ({num_slices})"
        raise UserError(
            f"config: train.batch_size ({batch_size}) must be a multiple of the {batch_ways(mesh)} {told} that "
            f"split it: take {batch_size + -batch_size % wanted}"
        )


def rows_here(batch_size: int, mesh: Mesh | None, devices: Sequence[Any] | None = None) -> tuple[int, ...]:
    """The rows of a batch that `devices` hold, those of this process by default, in order.

    Devices that `tensor` alone tells apart hold the same rows, and so may processes.
    """
    if mesh is None:
        return tuple(range(batch_size))
    parts = batch_sharding(mesh).devices_indices_map((batch_size,))
    held = (parts[device][0] for device in devices or mesh.local_devices)
    return tuple(sorted({row for part in held for row in range(*part.indices(batch_size))}))


def place(tree: Any, sharding: NamedSharding | None) -> Any:
    """The tree, whole on every host, as arrays on the devices of all."""
    if sharding is None:
        return jax.device_put(tree)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__),
        jax.tree.map(np.asarray, tree),
    )


def place_rows(tree: Any, rows: Sequence[int], batch_size: int, mesh: Mesh | None) -> Any:
    """Rows of a batch, those of `rows_here` on every host, as arrays of the whole batch on the devices of all."""
    if mesh is None:
        return jax.device_put(tree)

    def whole(leaf: np.ndarray) -> jax.Array:
        def part(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(batch_size)
            first = rows.index(start)  # the rows of a device follow each other, here as in the batch
            return leaf[first : first + stop - start]

        return jax.make_array_from_callback((batch_size, *leaf.shape[1:]), batch_sharding(mesh), part)

    return jax.tree.map(whole, tree)


def any_of_all(flag: bool) -> jax.Array:
    """Whether any process has said True, still on its way: bool []. All processes call it together."""
    of_each, join = _joining()
    return join(jax.make_array_from_callback((jax.device_count(),), of_each, lambda index: np.full(1, flag)))


@functools.cache
def _joining() -> tuple[NamedSharding, Callable]:
    mesh = Mesh(np.array(jax.devices()), ("devices",), axis_types=_AXIS_TYPES[:1])
    whole = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec("devices")), jax.jit(lambda flags: flags.any(), out_shardings=whole)


def spread(function: Callable, mesh: Mesh | None) -> Callable:
    """`function(params, *arrays)` of arrays with one row a clip, its rows spread over the devices.

    Where the rows do not go up, rows of zeros are added and their answers taken away again. With several processes
    the arrays are whole on every host, and so are the answers.
    """
    if mesh is None:
        return function
    sharding, ways = batch_sharding(mesh), batch_ways(mesh)
    joined = jax.jit(
        lambda params, *arrays: function(gathered(params), *arrays),
        out_shardings=replicated(mesh) if mesh.is_multi_process else None,
    )

    def call(params, *arrays):
        rows = len(arrays[0])
        padding = -rows % ways
        padded = [np.pad(array, [(0, padding)] + [(0, 0)] * (array.ndim - 1)) for array in map(np.asarray, arrays)]
        answer = joined(params, *place(padded, sharding))
        return jax.tree.map(lambda leaf: leaf[:rows], answer) if padding else answer

    return within(mesh, call)


def _name_of(path: tuple) -> str:
    return "/".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))


def _filled(sizes: tuple[int, ...], num_devices: int) -> tuple[int, ...]:
    known = math.prod(size for size in sizes if size != -1)
    left = num_devices // known
    found = tuple(left if size == -1 else size for size in sizes)
    if math.prod(found) != num_devices:
        told = " x ".join(f"{axis} {'?' if size == -1 else size}" for axis, size in zip(AXES, sizes, strict=True))
        raise UserError(
            f"config: mesh {told} does not make {num_devices} devices: its sizes must multiply to their number; "
            "-1 in one of them is what the others leave"
        )
    return found
