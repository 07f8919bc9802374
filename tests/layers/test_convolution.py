"""The depthwise convolution: XLA's own convolution is the judge, of values and of gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.layers.convolution import depthwise, fusion_border, reduce_squares

compiled = jax.jit(depthwise)

# size of the picture, kernel, stride, dilation, padding
CASES = [
    ((5, 7), (3, 3), 1, 1, "SAME"),
    ((6, 7), (3, 3), 2, 1, "SAME"),
    ((9, 6), (3, 3), 1, 4, ((4, 4), (4, 4))),
    ((8, 9), (3, 3), 2, 2, ((1, 0), (2, 3))),
    ((3, 6), (3, 2), 3, 1, "VALID"),
]


def case(seed, size, sides, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(2, *size, 6)), dtype), jnp.asarray(rng.normal(size=(*sides, 1, 6)), dtype)


def judge(x, kernel, stride, dilation, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1],
    )  # fmt: skip


@pytest.mark.parametrize(("size", "sides", "stride", "dilation", "padding"), CASES)
def test_values_and_gradients_are_those_of_a_convolution(size, sides, stride, dilation, padding):
    x, kernel = case(0, size, sides)
    shape = jax.eval_shape(lambda x, kernel: judge(x, kernel, stride, dilation, padding), x, kernel).shape
    gradient = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)

    def value_and_gradients(convolve):
        value, back = jax.vjp(lambda x, kernel: convolve(x, kernel, stride, dilation, padding), x, kernel)
        return value, *back(gradient)

    got, wanted = (jax.jit(value_and_gradients, static_argnums=0)(each) for each in (depthwise, judge))
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-5)


def test_a_hand_worked_picture():
    x = jnp.arange(1.0, 5.0).reshape(1, 2, 2, 1)  # 1 2 / 3 4
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)  # 0 1 2 / 3 4 5 / 6 7 8
    # At (0, 0) the centre 4 meets 1, 5 meets 2, 7 meets 3 and 8 meets 4.
    wanted = [[4 + 10 + 21 + 32, 3 + 8 + 18 + 28], [1 + 4 + 12 + 20, 0 + 2 + 9 + 16]]
    np.testing.assert_array_equal(compiled(x, kernel)[0, :, :, 0], wanted)


def test_channels_do_not_mix():
    x, kernel = case(2, (4, 4), (3, 3))
    changed = compiled(x.at[..., 3].add(1.0), kernel) - compiled(x, kernel)
    changed = np.asarray(changed)
    assert np.all(changed[..., 3] != 0)
    assert np.all(np.delete(changed, 3, axis=-1) == 0)


def test_half_precision_rounds_once():
    x, kernel = case(3, (6, 6), (3, 3), jnp.bfloat16)
    got = compiled(x, kernel)
    assert got.dtype == jnp.bfloat16
    wanted = jax.jit(judge, static_argnums=(2, 3, 4))(x.astype(jnp.float32), kernel.astype(jnp.float32), 1, 1, "SAME")
    np.testing.assert_allclose(got.astype(jnp.float32), wanted, rtol=2.0**-8, atol=1e-6)


def test_a_program_for_another_platform_holds_the_convolution():
    x, kernel = case(4, (6, 6), (3, 3))
    text = {
        platform: jax.export.export(jax.jit(depthwise), platforms=[platform])(x, kernel).mlir_module()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert "stablehlo.convolution" not in text["cpu"]
    assert "stablehlo.convolution" in text["cuda"]
    assert "stablehlo.convolution" in text["tpu"]


@pytest.mark.parametrize(("size", "side"), [((6, 9), 3), ((7, 5), 2), ((4, 3), 1)])
def test_squares_are_reduced_as_by_a_convolution(size, side):
    rng = np.random.default_rng(5)
    x, kernel = rng.normal(size=(2, *size, 3)), rng.normal(size=(side, side, 3, 4))
    rows, columns = size[0] // side, size[1] // side  # what fills no square is left out
    squares = x[:, : rows * side, : columns * side].reshape(2, rows, side, columns, side, 3)
    wanted = np.einsum("byixjc,ijcd->byxd", squares, kernel)
    got = jax.jit(reduce_squares)(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_border_changes_no_number_and_no_gradient(dtype):
    tiny, large = (float(limit) for limit in (jnp.finfo(dtype).tiny, jnp.finfo(dtype).max))
    x = jnp.asarray([0.0, -1.0, 1 / 3, tiny, large, np.inf, np.nan], dtype)
    value, slope = jax.jit(jax.value_and_grad(lambda x: fusion_border(x)[:3].astype(jnp.float32).sum()))(x)
    np.testing.assert_array_equal(jax.jit(fusion_border)(x).astype(jnp.float32), x.astype(jnp.float32))
    np.testing.assert_array_equal(slope.astype(jnp.float32), [1, 1, 1, 0, 0, 0, 0])
    assert value == x[:3].astype(jnp.float32).sum()
