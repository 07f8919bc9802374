"""Rows times the matrix of their own expert: in slots, or sorted and without slots, as it takes to drop no token.

`slots` multiplies a fixed number of rows an expert. `ragged` is `jax.lax.ragged_dot`: right on every platform, fast
where a grouped kernel stands behind it (TPU), and E times the work on a CPU, which multiplies every row with every
matrix and masks. `blocked` is our own for the CPU: a loop over experts, each of which multiplies its rows in as few
blocks as hold them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SMALLEST = 32  # rows of a block


@jax.custom_vjp
def slots(
    x: Float[Array, "e p d"], matrices: Float[Array, "e d h"], bias: Float[Array, "e h"]
) -> Float[Array, "e p h"]:
    """Row block i times matrix i plus bias i.

    On a CPU one after the other: few rows and many matrices take a batched product there a third longer (measured: 64
    blocks of 128 rows, 768 x 1536). The matrices' gradient is as fast in one.
    """
    return _each(lambda rows, matrix, offset: rows @ matrix + offset[None], x, matrices, bias)


def _slots_forward(x, matrices, bias):
    return slots(x, matrices, bias), (x, matrices)


def _slots_backward(kept, gradient):
    x, matrices = kept
    by_x = _each(lambda rows, matrix: rows @ matrix.T, gradient, matrices)
    return by_x, jnp.einsum("epd,eph->edh", x, gradient), gradient.sum(axis=1)


slots.defvjp(_slots_forward, _slots_backward)


def _each(function: Callable, *operands: Array) -> Array:
    def in_turn(*operands):
        return jax.lax.map(lambda each: function(*each), operands)

    return jax.lax.platform_dependent(*operands, cpu=in_turn, default=jax.vmap(function))


def ragged(
    x: Float[Array, "s d"], matrices: Float[Array, "e d h"], bias: Float[Array, "e h"], sizes: Int[Array, " e"]
) -> Float[Array, "s h"]:
    """Rows of group i, `sizes[i]` of them after those of the groups before, times matrix i plus bias i.

    Rows behind the last group give 0: a grouped kernel leaves them as it found them, so they are masked here.
    """
    product = jax.lax.ragged_dot(x, matrices, sizes, preferred_element_type=x.dtype)
    is_real = jnp.arange(x.shape[0])[:, None] < jnp.sum(sizes)
    return jnp.where(is_real, product + rows_of(bias, sizes, x.shape[0]), 0)


def rows_of(table: Float[Array, "e h"], sizes: Int[Array, " e"], num_rows: int) -> Float[Array, "{num_rows} h"]:
    """Row i of the table for the rows of group i; 0 behind the last. A product: its derivative is no scatter."""
    ends = jnp.cumsum(sizes)[:, None]
    row = jnp.arange(num_rows)[None]
    own = (row < ends) & (row >= ends - sizes[:, None])
    return jnp.einsum("es,eh->sh", own.astype(table.dtype), table)


@jax.custom_vjp
def blocked(
    x: Float[Array, "s d"], matrices: Float[Array, "e d h"], bias: Float[Array, "e h"], sizes: Int[Array, " e"]
) -> Float[Array, "s h"]:
    """As `ragged`."""

    def multiply(rows, own, old, matrix_and_bias):
        matrix, offset = matrix_and_bias
        return jnp.where(own, rows @ matrix + offset[None], old)

    return _rows_of_groups(x, (matrices, bias), sizes, multiply, matrices.shape[2])


def _blocked_forward(x, matrices, bias, sizes):
    return blocked(x, matrices, bias, sizes), (x, matrices, sizes)


def _blocked_backward(kept, gradient):
    x, matrices, sizes = kept

    def transposed(rows, own, old, matrix):
        return jnp.where(own, jax.lax.dot_general(rows, matrix, (((1,), (1,)), ((), ()))), old)

    by_x = _rows_of_groups(gradient, matrices, sizes, transposed, x.shape[1])
    by_matrices, by_bias = _sums_of_groups(x, gradient, sizes)
    return by_x, by_matrices, by_bias, None


blocked.defvjp(_blocked_forward, _blocked_backward)


def _rows_of_groups(x: Array, tables, sizes: Array, function: Callable, width: int) -> Array:
    """[s, width]: `function` of each group's rows and its slice of `tables`; 0 behind the last group."""
    num_rows = x.shape[0]

    def group(out, slices):
        table, start, count = slices

        def block(size, place, out):
            first, own = _rows_at(place, size, num_rows, start, count)
            rows, old = (jax.lax.dynamic_slice_in_dim(each, first, size) for each in (x, out))
            return jax.lax.dynamic_update_slice_in_dim(out, function(rows, own, old, table), first, axis=0)

        return _over_blocks(block, out, num_rows, len(sizes), start, count), None

    out = jnp.zeros_like(x, shape=(num_rows, width))
    return jax.lax.scan(group, out, (tables, jnp.cumsum(sizes) - sizes, sizes))[0]


def _sums_of_groups(x: Array, gradient: Array, sizes: Array) -> tuple[Array, Array]:
    """Each group's x^T gradient [e, d, h] and sum of the gradient [e, h].

    The first rows of all groups, an even share of each, in one batched product: it writes its results where they stay.
    What groups hold beyond is added block by block.
    """
    num_rows, starts = x.shape[0], jnp.cumsum(sizes) - sizes
    share = _block_sizes(num_rows, len(sizes))[0]
    row = starts[:, None] + jnp.arange(share)[None]
    own = jnp.arange(share)[None] < sizes[:, None]
    rows, slopes = (jax.lax.optimization_barrier(jnp.take(each, row, axis=0, mode="clip")) for each in (x, gradient))
    slopes = jnp.where(own[..., None], slopes, 0)

    def group(i, sums):
        start, count = starts[i] + share, jnp.maximum(sizes[i] - share, 0)

        def block(size, place, sums):
            first, own = _rows_at(place, size, num_rows, start, count)
            rows = jax.lax.dynamic_slice_in_dim(x, first, size)
            slopes = jnp.where(own, jax.lax.dynamic_slice_in_dim(gradient, first, size), 0)
            product = jax.lax.dot_general(rows, slopes, (((0,), (0,)), ((), ())))
            return sums[0].at[i].add(product), sums[1].at[i].add(slopes.sum(axis=0))

        return _over_blocks(block, sums, num_rows, len(sizes), start, count)

    return jax.lax.fori_loop(0, len(sizes), group, (jnp.einsum("epd,eph->edh", rows, slopes), slopes.sum(axis=1)))


def _over_blocks(block: Callable, carry, num_rows: int, num_groups: int, start: Array, count: Array):
    """`block(size, place, carry)` over a group, in blocks of an even share of the rows and of a quarter of it.

    A remainder above one small block takes a large one: multiplying zeros costs less than reading the matrix again.
    """
    large, small = _block_sizes(num_rows, num_groups)
    num_large = jnp.maximum(count + large - 1 - small, 0) // large
    carry = jax.lax.fori_loop(0, num_large, lambda i, c: block(large, start + i * large, c), carry)
    rest = num_large * large
    num_small = -(-jnp.maximum(count - rest, 0) // small)
    return jax.lax.fori_loop(0, num_small, lambda i, c: block(small, start + rest + i * small, c), carry)


def _block_sizes(num_rows: int, num_groups: int) -> tuple[int, int]:
    large = min(num_rows, max(SMALLEST, -(-num_rows // num_groups)))
    return large, min(large, max(SMALLEST, large // 4))


def _rows_at(place: Array, size: int, num_rows: int, start: Array, count: Array) -> tuple[Array, Array]:
    """Where a block begins (the last ones earlier, to end inside the rows), and which of its rows it is to fill."""
    first = jnp.minimum(place, num_rows - size)
    row = first + jnp.arange(size)[:, None]
    return first, (row >= place) & (row < start + count)
