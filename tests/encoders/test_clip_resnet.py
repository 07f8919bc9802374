"""CLIP's residual network: its pooling and its positions by hand, sizes, and what training may ask of it."""

import dataclasses

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.config.encoders.clip_resnet import CLIPResNetConfig
from ssu_jax.encoders.clip_resnet import AttentionPool, CLIPResNet, stretched_line
from ssu_jax.types import UserError

SMALL = CLIPResNetConfig(image_size=64, depths=(1, 1, 1, 1), width=2, num_heads=4, embedding_width=5)


@pytest.fixture(scope="module")
def pool():
    """Parameters of the pooling of a 2 x 2 map of 64 channels, none of them a zero."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 2, 2, 64)), jnp.float32)
    params = jax.eval_shape(AttentionPool(SMALL).init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda each: jnp.asarray(rng.normal(0.0, 0.2, each.shape), jnp.float32), params)
    return params, x


def by_hand(params, queries, context):
    """One row of a batch, NumPy, head by head: [l, 64], [n, 64] -> [l, 5]."""
    weights = {name: params[name]["kernel"] for name in ("query", "key", "value", "out")}
    query, key, value = (given @ np.asarray(weights[name], np.float64) + params[name]["bias"] for given, name in
                         ((queries, "query"), (context, "key"), (context, "value")))  # fmt: skip
    mixed = []
    for head in range(4):
        part = slice(16 * head, 16 * head + 16)
        logits = query[:, part] @ key[:, part].T / 4.0
        share = np.exp(logits - logits.max(1, keepdims=True))
        mixed.append(share / share.sum(1, keepdims=True) @ value[:, part])
    return np.concatenate(mixed, 1) @ np.asarray(weights["out"], np.float64) + params["out"]["bias"]


@pytest.mark.parametrize("positions", ["grid", "released"])
def test_pooling_by_hand(pool, positions):
    params, x = pool
    module = AttentionPool(dataclasses.replace(SMALL, dense_positions=positions))
    embedding, dense = jax.jit(module.apply)({"params": params}, x)
    assert embedding.shape == (2, 5)
    assert dense.shape == (2, 2, 2, 5)
    params = jax.tree.map(np.asarray, params)
    table = params["positions"].astype(np.float64)
    for row in range(2):
        places = np.asarray(x[row], np.float64).reshape(4, 64)
        whole = np.concatenate([places.mean(0, keepdims=True), places]) + table
        np.testing.assert_allclose(embedding[row], by_hand(params, whole[:1], whole)[0], atol=1e-4)
        # Five rows for four places: 0.125, 1.375, 2.625 and 3.875 are where the places lie.
        line = np.stack([(1 - t) * table[i] + t * table[i + 1] for i, t in enumerate((0.125, 0.375, 0.625, 0.875))])
        queries, context = (whole[1:], whole) if positions == "grid" else (places + line, places + line)
        np.testing.assert_allclose(dense[row].reshape(4, 5), by_hand(params, queries, context), atol=1e-4)


def test_stretched_line_by_hand():
    table = jnp.asarray([[0.0, 10.0], [4.0, 20.0]])
    np.testing.assert_allclose(stretched_line(table, 2), table)
    # Twice as many: quarters between the two, and the ends beyond them.
    np.testing.assert_allclose(stretched_line(table, 4), [[0.0, 10.0], [1.0, 12.5], [3.0, 17.5], [4.0, 20.0]])
    # T-VSL's two images side by side: 98 places, the first row half a place before the second.
    rows = stretched_line(jnp.arange(50.0)[:, None], 98)[:, 0]
    np.testing.assert_allclose(rows[:3], [0.0, 1.5 * 50 / 98 - 0.5, 2.5 * 50 / 98 - 0.5], atol=1e-5)
    assert float(rows[-1]) == 49.0


def test_two_images_side_by_side_give_seven_by_fourteen_tokens():
    """Full size, nothing computed; odd sizes are rounded down at each halving."""
    run = lambda x: CLIPResNet(CLIPResNetConfig()).init_with_output(jax.random.key(0), x)[0]  # noqa: E731
    features = jax.eval_shape(run, jax.ShapeDtypeStruct((2, 224, 448, 3), jnp.float32))
    assert {name: x.shape for name, x in features.items()} == {
        "stage_1": (2, 56, 112, 256),
        "stage_2": (2, 28, 56, 512),
        "stage_3": (2, 14, 28, 1024),
        "stage_4": (2, 7, 14, 2048),
        "embedding": (2, 1024),
        "dense": (2, 7, 14, 1024),
    }
    with pytest.raises(UserError, match="at least 32 pixels a side are wanted, got 31 x 64"):
        jax.eval_shape(run, jax.ShapeDtypeStruct((1, 31, 64, 3), jnp.float32))


@pytest.mark.full
def test_images_do_not_see_each_other_and_bfloat16_computes_small():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 64, 64, 3)), jnp.float32)
    params = jax.jit(CLIPResNet(SMALL).init)(jax.random.key(0), images)
    apply = jax.jit(lambda params, images, dtype: CLIPResNet(SMALL, dtype).apply(params, images), static_argnums=2)
    both = apply(params, images, jnp.float32)
    swapped = apply(params, images[::-1], jnp.float32)
    for name, value in both.items():
        np.testing.assert_allclose(value, swapped[name][::-1], atol=1e-5, err_msg=name)
    low = apply(params, images, jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(low)} == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    error = np.abs(np.asarray(low["embedding"], np.float32) - both["embedding"]).max()
    assert error < 0.05 * np.abs(both["embedding"]).max()


@pytest.mark.full
def test_statistics_have_no_gradient_and_remat_changes_no_number():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64, 64, 3)), jnp.float32)
    params = jax.jit(CLIPResNet(SMALL).init)(jax.random.key(0), images)["params"]

    def loss(params, remat):
        return (CLIPResNet(SMALL, remat=remat).apply({"params": params}, images)["dense"] ** 2).sum()

    plain, again = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, remat) for remat in (False, True))
    np.testing.assert_allclose(plain[0], again[0], rtol=1e-5)
    slopes = flax.traverse_util.flatten_dict(plain[1], sep="/")
    for path, slope in slopes.items():
        still = path.endswith(("norm/mean", "norm/variance"))
        assert bool((slope == 0.0).all()) == still or path == "pool/key/bias", path
