"""Attention: hand-worked weights, masks that hide, and a cache that changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.layers import attention, embeddings, transformer


def test_attend_by_hand():
    # Two keys with logits 0 and ln 3 (one head of width 1): weights 1/4 and 3/4.
    query, key = jnp.ones((1, 1, 1, 1)), jnp.array([0.0, np.log(3.0)]).reshape(1, 2, 1, 1)
    value = jnp.array([10.0, 20.0]).reshape(1, 2, 1, 1)
    out, weights = attention.attend(query, key, value)
    np.testing.assert_allclose(weights.ravel(), [0.25, 0.75], rtol=1e-6)
    np.testing.assert_allclose(out.ravel(), [17.5], rtol=1e-6)


def test_masked_keys_change_nothing(rng):
    query, key, value = (jnp.asarray(rng.normal(size=(2, 3, 2, 4)), jnp.float32) for _ in range(3))
    bias = jnp.array([0.0, 0.0, attention.NEG_INF]).reshape(1, 1, 1, 3)
    out, _ = attention.attend(query, key, value, bias)
    other, _ = attention.attend(query, key.at[:, 2].set(7.0), value.at[:, 2].set(-5.0), bias)
    np.testing.assert_array_equal(out, other)


def test_all_keys_masked_is_finite(rng):
    x = jnp.asarray(rng.normal(size=(1, 2, 1, 4)), jnp.float32)
    out, _ = attention.attend(x, x, x, jnp.full((1, 1, 1, 2), attention.NEG_INF))
    np.testing.assert_allclose(out[0, 0], x[0].mean(axis=0), rtol=1e-5)


def test_causal_block_does_not_look_ahead(rng):
    block = transformer.CausalAttentionBlock(8, 2)
    x = jnp.asarray(rng.normal(size=(2, 5, 8)), jnp.float32)
    variables = block.init(jax.random.key(0), x)
    before = block.apply(variables, x)
    after = block.apply(variables, x.at[:, 3:].set(1.5))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.abs(before[:, 3:] - after[:, 3:]).max() > 1e-3


def test_step_by_step_equals_whole(rng):
    block = transformer.CausalAttentionBlock(8, 2)
    x = jnp.asarray(rng.normal(size=(2, 5, 8)), jnp.float32)
    variables = block.init(jax.random.key(0), x)
    cache, rows = attention.empty_cache(2, 7, 2, 8, jnp.float32), []
    for position in range(5):
        row, cache = block.apply(variables, x[:, position : position + 1], cache, position, method=block.step)
        rows.append(row)
    np.testing.assert_allclose(jnp.concatenate(rows, axis=1), block.apply(variables, x), atol=1e-5)


def test_grid_codes_tell_every_cell_apart():
    codes = np.asarray(embeddings.grid(12, 12, 32))
    distance = np.linalg.norm(codes[:, None] - codes[None], axis=-1) + 10 * np.eye(144)
    assert distance.min() > 0.1


@pytest.fixture
def rng():
    return np.random.default_rng(0)
