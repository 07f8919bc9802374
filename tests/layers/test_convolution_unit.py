"""The brick of MobileNets: its norm by hand, its padding by hand, one number for both kinds of kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.layers.batch_norm import FixedBatchNorm
from ssu_jax.layers.convolution_unit import ConvolutionUnit


def test_fixed_batch_norm_by_hand():
    weights = {"scale": 3.0, "bias": 1.0, "mean": 2.0, "variance": 3.0}
    variables = {"params": {name: jnp.array([value]) for name, value in weights.items()}}
    x = jnp.array([[2.0], [4.0]])
    norm = FixedBatchNorm(eps=1.0)  # (x - 2) / 2 * 3 + 1
    np.testing.assert_allclose(norm.apply(variables, x), [[1.0], [4.0]], rtol=1e-6)
    slopes = jax.grad(lambda variables: jnp.sum(norm.apply(variables, x)))(variables)["params"]
    # The slope by scale is the sum of (x - 2) / 2, by bias the number of rows; statistics have none.
    assert {name: float(slope[0]) for name, slope in slopes.items()} == {
        "scale": pytest.approx(1.0),
        "bias": 2.0,
        "mean": 0.0,
        "variance": 0.0,
    }
    low = norm.apply(variables, x.astype(jnp.bfloat16))
    assert low.dtype == jnp.bfloat16


def test_a_new_batch_norm_changes_nothing():
    x = jnp.arange(6.0).reshape(1, 1, 2, 3)
    norm = FixedBatchNorm(eps=0.0)
    np.testing.assert_array_equal(norm.apply(norm.init(jax.random.key(0), x), x), x)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(
    ("padding", "by_hand"),
    # A row 1 2 3 4 under a kernel of ones, stride 2: SAME adds one zero behind, symmetric one on each side.
    [("same", [1 + 2 + 3, 3 + 4]), ("symmetric", [1 + 2, 2 + 3 + 4])],
)
def test_padding_by_hand(padding, by_hand, depthwise):
    row = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4, 1)
    unit = ConvolutionUnit(1, 3, 2, depthwise=depthwise, activation=None, padding=padding)
    kernel = jnp.zeros((3, 3, 1, 1)).at[1].set(1.0)
    out = unit.apply({"params": {"kernel": kernel, "bias": jnp.zeros(1)}}, row)
    np.testing.assert_allclose(out[0, 0, :, 0], by_hand)


def test_bias_activation_and_norm_come_in_that_order():
    x = jnp.array([1.0, -1.0, 9.0]).reshape(1, 1, 3, 1)
    kernel = jnp.full((1, 1, 1, 1), 2.0)
    out = ConvolutionUnit(1).apply({"params": {"kernel": kernel, "bias": jnp.array([1.0])}}, x)
    np.testing.assert_array_equal(out.ravel(), [3.0, 0.0, 6.0])  # ReLU6
    norm = {"scale": jnp.ones(1), "bias": jnp.array([-1.0]), "mean": jnp.ones(1), "variance": jnp.ones(1)}
    linear = ConvolutionUnit(1, activation=None, norm_eps=0.0)
    out = linear.apply({"params": {"kernel": kernel, "norm": norm}}, x)
    np.testing.assert_array_equal(out.ravel(), [0.0, -4.0, 16.0])


def test_a_depthwise_unit_is_a_full_one_with_a_diagonal_kernel():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 9, 8, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 3)), jnp.float32)
    bias = jnp.asarray(rng.normal(size=3), jnp.float32)
    for stride, dilation in ((1, 1), (2, 1), (1, 2)):
        ours = ConvolutionUnit(3, 3, stride, dilation, depthwise=True)
        full = ConvolutionUnit(3, 3, stride, dilation)
        out = ours.apply({"params": {"kernel": kernel, "bias": bias}}, x)
        other = full.apply({"params": {"kernel": kernel * jnp.eye(3)[None, None], "bias": bias}}, x)
        np.testing.assert_allclose(out, other, atol=1e-5)


def test_groups_are_convolutions_side_by_side():
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((1, 5, 4, 6), (3, 3, 3, 4)))

    def run(x, kernel, groups):
        unit = ConvolutionUnit(kernel.shape[-1], 3, 2, activation=None, padding="symmetric", groups=groups)
        bias = jnp.zeros(kernel.shape[-1])
        return jax.jit(unit.apply)({"params": {"kernel": kernel, "bias": bias}}, x)

    apart = [run(x[..., 3 * i : 3 * i + 3], kernel[..., 2 * i : 2 * i + 2], 1) for i in (0, 1)]
    np.testing.assert_allclose(run(x, kernel, 2), jnp.concatenate(apart, -1), atol=1e-5)
