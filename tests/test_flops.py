"""The count of FLOPs against sums made by hand, against its own invariants and against XLA's count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ssu_jax.flops import KINDS, flops_of


def shape(*sizes, dtype="float32"):
    return jax.ShapeDtypeStruct(sizes, dtype)


def kinds(flops) -> dict:
    return {kind: count for kind, count in flops.by_kind.items() if count}


# Products


def test_a_matrix_product():
    flops = flops_of(jnp.dot, shape(3, 5), shape(5, 7))
    assert flops.total == flops.published == 2 * 3 * 5 * 7
    assert tuple(flops.by_kind) == KINDS
    assert (flops.loops_counted_once, flops.loops_at_bound, flops.uncounted) == (0, 0, ())


def test_a_batched_product_counts_the_batch_once():
    flops = flops_of(functools.partial(jnp.einsum, "bhqk,bhsk->bhqs"), shape(2, 4, 3, 8), shape(2, 4, 6, 8))
    assert kinds(flops) == {"matmul": 2 * (2 * 4) * 3 * 6 * 8}


def test_vmap_multiplies():
    one, many = flops_of(jnp.dot, shape(3, 5), shape(5, 7)), flops_of(jax.vmap(jnp.dot), shape(9, 3, 5), shape(9, 5, 7))
    assert many.total == 9 * one.total


def convolution(image, kernel, **options):
    return lax.conv_general_dilated(image, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)


@pytest.mark.parametrize(
    ("kernel", "options", "products"),
    [
        # 10 x 10 -> 8 x 8: 9 taps, 4 channels in, 6 out
        ((3, 3, 4, 6), {"window_strides": (1, 1), "padding": "VALID"}, 8 * 8 * 9 * 4 * 6),
        # padding counts, as published figures count it
        ((3, 3, 4, 6), {"window_strides": (1, 1), "padding": "SAME"}, 10 * 10 * 9 * 4 * 6),
        ((3, 3, 4, 6), {"window_strides": (2, 2), "padding": "VALID"}, 4 * 4 * 9 * 4 * 6),
        # a kernel with holes reaches further: 10 - 2 * 2 = 6
        ((3, 3, 4, 6), {"window_strides": (1, 1), "padding": "VALID", "rhs_dilation": (2, 2)}, 6 * 6 * 9 * 4 * 6),
        # two groups: an output channel sees half of the inputs
        ((3, 3, 2, 6), {"window_strides": (1, 1), "padding": "VALID", "feature_group_count": 2}, 8 * 8 * 9 * 2 * 6),
        # depthwise
        ((3, 3, 1, 4), {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 4}, 10 * 10 * 9 * 4),
    ],
)
def test_a_convolution(kernel, options, products):
    flops = flops_of(functools.partial(convolution, **options), shape(2, 10, 10, 4), shape(*kernel))
    assert kinds(flops) == {"convolution": 2 * 2 * products}


def test_a_transposed_convolution_counts_what_each_entry_spreads():
    def spread(image, kernel):
        return lax.conv_transpose(image, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert spread(jnp.zeros((1, 5, 5, 3)), jnp.zeros((4, 4, 3, 7))).shape == (1, 20, 20, 7)
    assert flops_of(spread, shape(1, 5, 5, 3), shape(4, 4, 3, 7)).total == 2 * 25 * 16 * 3 * 7


@pytest.mark.parametrize("groups", [1, 4])
def test_the_gradient_of_a_strided_convolution_costs_as_much_for_input_and_for_kernel(groups):
    def loss(image, kernel):
        return (
            convolution(image, kernel, window_strides=(2, 2), padding="VALID", feature_group_count=groups) ** 2
        ).sum()

    args = shape(2, 11, 11, 4), shape(3, 3, 4 // groups, 8)
    forward = flops_of(loss, *args).by_kind["convolution"]
    assert forward == 2 * 2 * 5 * 5 * 9 * (4 // groups) * 8
    assert flops_of(jax.value_and_grad(loss, (0, 1)), *args).by_kind["convolution"] == 3 * forward


def test_a_ragged_product_sends_every_row_to_one_group():
    flops = flops_of(lax.ragged_dot, shape(10, 4), shape(3, 4, 5), shape(3, dtype="int32"))
    assert flops.total == 2 * 10 * 4 * 5


# Single numbers


def test_elementwise_transcendental_and_reduction():
    def function(x):
        y = x * 2.0 + 1.0  # 2 x 12
        return jnp.exp(y).sum(axis=1), y.max()  # 12 transcendental; 4 rows of 3 -> 4 x 2; 12 -> 11

    assert kinds(flops_of(function, shape(4, 3))) == {"elementwise": 24, "transcendental": 12, "reduction": 8 + 11}


@pytest.mark.parametrize(
    ("power", "products"), [(2, 1), (3, 2), (4, 2), (7, 4), (8, 3), (-1, 1), (-2, 2), (0, 0), (1, 0)]
)
def test_an_integer_power_costs_its_multiplications(power, products):
    assert flops_of(lambda x: lax.integer_pow(x, power), shape(10)).total == 10 * products


def test_integers_and_moved_data_are_free():
    def function(x, ids):
        ids = (ids * 3 + 1) % 4
        return jnp.where(ids[:, None] > 2, jnp.take(x, ids, axis=0, mode="clip"), 0.0).T.reshape(-1).astype("bfloat16")

    flops = flops_of(function, shape(4, 3), shape(5, dtype="int32"))
    assert (flops.total, flops.uncounted) == (0, ())


def test_random_bits_are_free_and_what_is_made_of_them_is_not():
    assert flops_of(lambda key: jax.random.bits(key, (100,)), jax.eval_shape(lambda: jax.random.key(0))).total == 0


def test_a_scatter_add_counts_what_is_added():
    flops = flops_of(lambda x, y: x.at[jnp.array([1, 1, 2])].add(y), shape(50, 3), shape(3, 3))
    assert kinds(flops) == {"reduction": 9}


def test_pooling_windows():
    pool = functools.partial(lax.reduce_window, init_value=-jnp.inf, computation=lax.max)
    flops = flops_of(
        lambda x: pool(x, window_dimensions=(1, 2, 2, 1), window_strides=(1, 2, 2, 1), padding="VALID"),
        shape(1, 8, 8, 3),
    )
    assert flops.total == 4 * 4 * 3 * 3  # the largest of 4 in 3 comparisons


def test_what_the_rule_does_not_know_is_named():
    flops = flops_of(lambda x: jnp.linalg.cholesky(x) @ x, shape(4, 4))
    assert "cholesky" in flops.uncounted
    assert flops.by_kind["matmul"] == 2 * 4**3


# Loops and branches


def test_a_scan_is_its_body_times_its_length():
    def function(x, weights):
        return lax.scan(lambda x, w: (x @ w, None), x, weights)[0]

    flops = flops_of(function, shape(256, 256), shape(15, 256, 256))
    assert flops.total == 15 * 2 * 256**3 == 503_316_480
    inner = flops_of(lambda xs, w: jax.vmap(function, (0, None))(xs, w), shape(3, 256, 256), shape(15, 256, 256))
    assert inner.total == 3 * flops.total


def test_scans_inside_scans_multiply():
    def inner(x):
        return lax.scan(lambda x, _: (x * 2.0, None), x, None, length=5)[0]

    assert (
        flops_of(lambda x: lax.scan(lambda x, _: (inner(x), None), x, None, length=7)[0], shape(3)).total == 3 * 5 * 7
    )


def test_a_branch_counts_as_the_dearest_one():
    def function(pick, x):
        return lax.switch(pick, [lambda x: x, lambda x: x @ x, lambda x: jnp.tanh(x)], x)

    assert kinds(flops_of(function, shape(dtype="int32"), shape(4, 4))) == {"matmul": 2 * 4**3}


@pytest.mark.parametrize(
    ("start", "step", "condition", "rounds"),
    [
        (0, 1, lambda i: i < 27, 27),
        (3, 2, lambda i: i < 10, 4),  # 3 5 7 9
        (3, 2, lambda i: i <= 9, 4),
        (3, 2, lambda i: lax.ge(jnp.int32(9), i), 4),
        (10, -3, lambda i: i > 0, 4),  # 10 7 4 1
        (10, -3, lambda i: i >= 1, 4),
        (5, 1, lambda i: i < 5, 0),
    ],
)
def test_a_while_loop_that_counts_to_a_number(start, step, condition, rounds):
    def function(x):
        return lax.while_loop(lambda c: condition(c[0]), lambda c: (c[0] + step, c[1] @ c[1]), (start, x))[1]

    flops = flops_of(function, shape(4, 4))
    assert flops.total == rounds * 2 * 4**3
    assert (flops.loops_counted_once, flops.loops_at_bound) == (0, 0)


def test_a_bound_that_is_carried_or_computed_from_numbers():
    def function(x):
        return lax.fori_loop(jnp.int32(2), jnp.int32(3) * 4, lambda i, x: x @ x, x)

    assert flops_of(jax.jit(function), shape(4, 4)).total == 10 * 2 * 4**3


def test_a_loop_that_may_stop_early_counts_at_its_bound_and_says_so():
    def write(x):
        def unfinished(carry):
            return (carry[0] < x.shape[0] - 1) & ~(carry[1] > 0.0).all()

        return lax.while_loop(unfinished, lambda c: (c[0] + 1, c[1] @ c[1]), (jnp.int32(0), x))

    flops = flops_of(jax.jit(write), shape(6, 6))
    assert flops.by_kind["matmul"] == 5 * 2 * 6**3
    assert flops.by_kind["elementwise"] == 6 * 36  # the condition is looked at once more
    assert (flops.loops_counted_once, flops.loops_at_bound) == (0, 1)


@pytest.mark.parametrize(
    ("condition", "update"),
    [
        (lambda c: c[1].sum() < 3.0, lambda c: (c[0] + 1, c[1] @ c[1])),  # no counter
        (lambda c: (c[0] < 9) | (c[1].sum() < 3.0), lambda c: (c[0] + 1, c[1] @ c[1])),  # `or`: no bound
        (lambda c: c[0] < 9, lambda c: (c[0] * 2, c[1] @ c[1])),  # no step
        (lambda c: c[0] < 9, lambda c: (c[0] - 1, c[1] @ c[1])),  # runs away from its limit
    ],
)
def test_a_loop_of_unknown_length_counts_once_or_at_the_bound_that_is_given(condition, update):
    def function(x):
        return lax.while_loop(condition, update, (0, x))[1]

    once, bound = flops_of(function, shape(4, 4)), flops_of(function, shape(4, 4), loop_bound=7)
    assert (once.by_kind["matmul"], once.loops_counted_once, once.loops_at_bound) == (2 * 4**3, 1, 0)
    assert (bound.by_kind["matmul"], bound.loops_counted_once, bound.loops_at_bound) == (7 * 2 * 4**3, 0, 1)


# Derivatives, recomputation, devices


def chain(weights, x):
    for weight in weights:
        x = x @ weight
    return 0.5 * (x**2).sum()


def test_forward_and_backward_of_a_chain_of_products_cost_three_times_the_forward():
    args = [shape(8, 8)] * 3, shape(5, 8)
    forward = flops_of(chain, *args).published
    assert forward == 3 * 2 * 5 * 8 * 8
    assert flops_of(jax.value_and_grad(chain, (0, 1)), *args).published == 3 * forward
    # The input of the first product needs no gradient.
    assert flops_of(jax.value_and_grad(chain), *args).published == 3 * forward - 2 * 5 * 8 * 8


def test_recomputation_counts_as_often_as_it_runs():
    def loss(weights, x, remat):
        block = lambda w, x: jnp.tanh(x @ w[0]) @ w[1]  # noqa: E731
        for w in weights:
            x = (jax.checkpoint(block) if remat else block)(w, x)
        return (x**2).sum()

    args = [(shape(8, 16), shape(16, 8))] * 3, shape(5, 8)
    plain, remat = (
        flops_of(jax.value_and_grad(functools.partial(loss, remat=remat)), *args).published for remat in (False, True)
    )
    # The backward pass needs the first product of each block again, not the second.
    assert remat - plain == 3 * 2 * 5 * 8 * 16


def test_what_no_output_needs_is_left_out():
    @jax.jit
    def both(x):
        return x @ x, jnp.tanh(x)

    assert kinds(flops_of(lambda x: both(x)[1], shape(4, 4))) == {"transcendental": 16}
    assert kinds(flops_of(lambda x: (x @ x, jnp.tanh(x))[1], shape(4, 4))) == {"transcendental": 16}


def test_calls_and_custom_derivatives_cost_what_is_in_them():
    @jax.custom_vjp
    def double(x):
        return x @ x

    double.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))
    product = 2 * 4**3
    assert flops_of(jax.jit(jax.jit(double)), shape(4, 4)).total == product
    assert flops_of(jax.value_and_grad(lambda x: double(x).sum()), shape(4, 4)).published == 3 * product
    # jax.nn.silu is jitted, jax.nn.relu has a custom derivative
    assert kinds(flops_of(jax.nn.silu, shape(10))) == {"transcendental": 10, "elementwise": 10}
    assert kinds(flops_of(jax.nn.relu, shape(10))) == {"elementwise": 10}


def test_a_shard_map_counts_all_devices():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    function = jax.shard_map(lambda x: x @ x.T, mesh=mesh, in_specs=spec, out_specs=spec)
    assert flops_of(function, shape(4, 8)).total == 2 * 4 * 4 * 8
    wide = jax.sharding.AbstractMesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    function = jax.shard_map(lambda x: x @ x.T, mesh=wide, in_specs=spec, out_specs=spec)
    assert flops_of(function, shape(4, 8)).total == 4 * (2 * 1 * 1 * 8)


# Against XLA


def network(image, kernel, weight, head):
    x = convolution(image, kernel, window_strides=(2, 2), padding="VALID", feature_group_count=2)
    x = jnp.maximum(x * 2.0 + 1.0, 0.0).reshape(image.shape[0], -1, 8) @ weight
    x = jnp.einsum("bnd,bmd->bnm", x, x)
    return (jnp.tanh(x) @ head).sum()


NETWORK = shape(2, 17, 17, 4), shape(3, 3, 2, 8), shape(8, 16), shape(64, 5)


def test_xla_counts_the_same_without_loops():
    analysis = jax.jit(network).lower(*NETWORK).compile().cost_analysis()
    flops = flops_of(network, *NETWORK)
    assert flops.by_kind["transcendental"] == analysis["transcendentals"]
    assert flops.total - flops.by_kind["transcendental"] == analysis["flops"]


def test_xla_counts_nearly_the_same_for_a_gradient():
    gradient = jax.value_and_grad(network, (0, 1, 2, 3))
    analysis = jax.jit(gradient).lower(*NETWORK).compile().cost_analysis()
    np.testing.assert_allclose(
        flops_of(gradient, *NETWORK).total, analysis["flops"] + analysis["transcendentals"], rtol=0.02
    )


def test_arrays_and_shapes_count_alike_and_nothing_is_run():
    ran = []

    def function(tree):
        jax.debug.callback(lambda: ran.append(1))
        return tree["x"] @ tree["x"]

    arrays = {"x": jnp.ones((4, 4))}
    assert flops_of(function, arrays).published == flops_of(function, {"x": shape(4, 4)}).published == 2 * 4**3
    jax.effects_barrier()
    assert not ran
