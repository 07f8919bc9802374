import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.config import TrainConfig
from ssu_jax.training import optimizer

CONFIG = TrainConfig(num_steps=110, warmup_steps=10, learning_rate=0.2, final_learning_rate=0.1)


@pytest.mark.parametrize(
    ("step", "wanted"),
    [(0, 0.02), (4, 0.1), (9, 0.2), (10, 0.2), (60, 0.2 * 0.55), (110, 0.02), (500, 0.02)],
)
def test_learning_rate_warms_up_linearly_and_falls_as_a_cosine(step, wanted):
    assert float(optimizer.learning_rate(CONFIG, step)) == pytest.approx(wanted, rel=1e-6)


def test_learning_rate_without_warm_up_starts_at_the_peak():
    assert float(optimizer.learning_rate(TrainConfig(warmup_steps=0), 0)) == pytest.approx(1.5e-3)


def test_only_matrices_are_decayed():
    params = {
        "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "norm": {"scale": jnp.ones(3)},
        "experts": {"w_in": jnp.ones((4, 2, 3)), "bias_in": jnp.ones((4, 3))},
    }
    assert optimizer.decayed(params) == {
        "dense": {"kernel": True, "bias": False},
        "norm": {"scale": False},
        "experts": {"w_in": True, "bias_in": False},
    }


def test_first_update_is_the_sign_of_the_gradient_plus_decay():
    config = TrainConfig(weight_decay=0.5, clip_norm=1e6)
    params = {"kernel": jnp.array([[2.0, -4.0]]), "bias": jnp.array([3.0])}
    gradient = {"kernel": jnp.array([[0.3, -7.0]]), "bias": jnp.array([5.0])}
    made = optimizer.make_optimizer(config)
    direction, _ = made.update(gradient, made.init(params), params)
    # Adam's first bias-corrected moments are g and g^2.
    np.testing.assert_allclose(direction["kernel"], [[1 + 0.5 * 2, -1 - 0.5 * 4]], rtol=1e-5)
    np.testing.assert_allclose(direction["bias"], [1.0], rtol=1e-5)


def test_clipping_limits_the_global_norm_before_the_moments():
    made = optimizer.make_optimizer(TrainConfig(clip_norm=1.0, beta2=0.5))
    params = {"kernel": jnp.zeros((1, 2))}
    _, state = made.update({"kernel": jnp.array([[30.0, 40.0]])}, made.init(params), params)
    parts = jax.tree.leaves(state, is_leaf=lambda part: hasattr(part, "mu"))
    moments = next(part for part in parts if hasattr(part, "mu"))
    np.testing.assert_allclose(moments.mu["kernel"], 0.1 * np.array([[0.6, 0.8]]), rtol=1e-5)
