"""The paper's boxes one by one."""

import jax
import jax.numpy as jnp
import numpy as np

from ssu_jax.config import ModelConfig
from ssu_jax.models import decoding
from ssu_jax.models.ssuformer.mask_collaboration import MaskCollaboration
from ssu_jax.types import MASK_THRESHOLD

CONFIG = ModelConfig(width=16, num_heads=2, pixel_width=8, region_tokens=4)


def mcm(frames, masks):
    module = MaskCollaboration(CONFIG)
    features = jnp.zeros((1, 8, 8, 8))
    return module.apply(module.init(jax.random.key(0), frames, features, masks), frames, features, masks)


def test_region_tokens_see_only_what_lies_under_the_mask():
    rng = np.random.default_rng(0)
    frames = jnp.asarray(rng.normal(size=(1, 32, 32, 3)), jnp.float32)
    masks = jnp.zeros((1, 32, 32)).at[:, 8:16, 8:24].set(1.0)
    outside = jnp.where(masks[..., None] > 0, frames, 9.0)
    inside = jnp.where(masks[..., None] > 0, 9.0, frames)
    before, other, changed = mcm(frames, masks), mcm(outside, masks), mcm(inside, masks)
    # Two of the 16 cells are covered: they come first, the others weigh next to nothing.
    assert (np.asarray(before.bias[0, :2]) > -0.01).all()
    assert (np.asarray(before.bias[0, 2:4]) < -9.0).all()
    np.testing.assert_allclose(before.tokens[0, :2], other.tokens[0, :2], atol=1e-5)
    np.testing.assert_allclose(before.summary, other.summary, atol=1e-4)
    assert np.abs(before.summary - changed.summary).max() > 1e-2


def test_region_tokens_know_where_they_are():
    frames = jnp.ones((1, 32, 32, 3))
    left = mcm(frames, jnp.zeros((1, 32, 32)).at[:, :8, :8].set(1.0))
    right = mcm(frames, jnp.zeros((1, 32, 32)).at[:, :8, 24:].set(1.0))
    assert np.abs(left.summary - right.summary).max() > 1e-2


def test_an_empty_mask_gives_the_null_token():
    frames, empty = jnp.ones((1, 32, 32, 3)), jnp.zeros((1, 32, 32))
    region = mcm(frames, empty)
    np.testing.assert_allclose(region.summary[0], region.tokens[0, -1], atol=1e-5)
    weights = jax.nn.softmax(region.bias[0])
    assert weights[-1] > 0.99


def test_specks_are_no_masks():
    """Of 100 pixels, 1 above the threshold is a speck at 2 % and 3 are a mask."""
    probabilities = jnp.full((2, 10, 10), 0.2).at[0, 0, 0].set(0.9).at[1, 0, :3].set(0.9)
    kept = np.asarray(decoding.without_specks(probabilities, 0.02))
    assert (kept > MASK_THRESHOLD).sum(axis=(1, 2)).tolist() == [0, 3]
    np.testing.assert_array_equal(kept[1], probabilities[1])
    assert kept[0].argmax() == 0
    np.testing.assert_array_equal(decoding.without_specks(probabilities, 0.0), probabilities)
