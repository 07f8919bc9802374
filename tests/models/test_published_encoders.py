"""SSUFormer on published encoders, at sizes that compile in seconds: the wiring, and what must not depend on what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax import losses, models
from ssu_jax.config import sizes
from ssu_jax.config.encoders import clip, pvt_v2, vggish
from ssu_jax.layers import images
from ssu_jax.models import decoding
from ssu_jax.models.ssuformer import clip_regions

TINY_CLIP = clip.CLIPConfig(
    vision=clip.CLIPVisionConfig(
        image_size=32, patch_size=8, width=16, depth=4, num_heads=2, hidden=16, embedding_width=12
    ),
    text=clip.CLIPTextConfig(vocab_size=64, length=32, width=16, depth=1, num_heads=2, hidden=16, embedding_width=12),
)
TINY_VGGISH = vggish.VGGishConfig(widths=(2, 2, 4, 4), hidden=8, embedding_width=8)
TINY_PVT = pvt_v2.PVTv2Config(
    widths=(4, 8, 8, 16), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), mlp_ratios=(2, 2, 2, 2)
)


@pytest.fixture(autouse=True)
def tiny_variants(monkeypatch):
    monkeypatch.setitem(clip.VARIANTS, "tiny", TINY_CLIP)
    monkeypatch.setitem(vggish.VARIANTS, "tiny", TINY_VGGISH)
    monkeypatch.setitem(pvt_v2.VARIANTS, "tiny", TINY_PVT)


def tiny_base(region_encoder="clip_masked"):
    config = sizes.tiny()
    config.model.visual.kind, config.model.visual.variant = "pvt_v2", "tiny"
    config.model.audio.kind, config.model.audio.variant = "vggish", "tiny"
    config.model.region_encoder, config.model.clip.variant = region_encoder, "tiny"
    config.model.visual_skip = config.model.tied_head = True
    return config


def random_batch(config, size=1):
    rng = np.random.default_rng(0)
    batch = models.example_batch(config, size)
    ids = rng.integers(4, 40, batch.text_ids.shape).astype(np.int32)
    ids[..., 0], ids[..., 9], ids[..., 10:] = 1, 2, 0
    return batch._replace(
        frames=jnp.asarray(rng.integers(0, 256, batch.frames.shape), jnp.uint8),
        log_mel=jnp.asarray(rng.normal(size=batch.log_mel.shape), jnp.float32),
        masks=jnp.asarray(rng.random(batch.masks.shape) < 0.2, jnp.uint8),
        text_ids=jnp.asarray(ids),
    )


@pytest.fixture(scope="module")
def built():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(clip.VARIANTS, "tiny", TINY_CLIP)
        patch.setitem(vggish.VARIANTS, "tiny", TINY_VGGISH)
        patch.setitem(pvt_v2.VARIANTS, "tiny", TINY_PVT)
        config = tiny_base().validate()
        model = models.build(config)
        return config, model, models.init(model, config, jax.random.key(0)), random_batch(config)


@pytest.fixture(params=["clip_masked", "clip_pooled"])
def regions(request):
    """The module with random features of two frames, and its parameters."""
    config = tiny_base(request.param)
    module, rng = clip_regions.CLIPRegions(config.model), np.random.default_rng(0)
    names = [f"block_{i}" for i in clip_regions.levels_of(4)] if request.param == "clip_pooled" else []
    features = {name: jnp.asarray(rng.normal(size=(2, 17, 16)), jnp.float32) for name in ("tokens", *names)}
    features["dense"] = jnp.asarray(rng.normal(size=(2, 16, 12)), jnp.float32)
    masks = jnp.asarray(rng.random((2, 32, 32)), jnp.float32)
    return module, features, masks, jax.jit(module.init)(jax.random.key(0), features, masks, masks)


@pytest.mark.parametrize("region_encoder", ["clip_masked", "clip_pooled"])
def test_published_encoders_stand_where_their_weights_go(region_encoder):
    config = tiny_base(region_encoder).validate()
    params = jax.eval_shape(lambda: models.init(models.build(config), config, jax.random.key(0)))
    assert {"visual_encoder", "audio_encoder", "clip_vision", "clip_text"} < set(params)
    assert "vggish" in params["audio_encoder"]
    assert "consistency" not in params  # CLIP has both heads


@pytest.mark.full
def test_the_loss_is_finite_and_every_part_learns(built):
    config, model, params, batch = built

    @jax.jit
    def gradient_of(params):
        def loss(params):
            outputs = model.apply({"params": params}, batch, 0.0, rngs={"mask": jax.random.key(0)}, train=True)
            return losses.total_loss(outputs, batch, config.losses)[0]

        return jax.value_and_grad(loss)(params)

    loss, gradient = gradient_of(params)
    assert np.isfinite(loss)
    for module, tree in gradient.items():
        leaves = jax.tree.leaves(tree)
        assert all(np.isfinite(leaf).all() for leaf in leaves), module
        assert any(np.abs(leaf).max() > 0 for leaf in leaves), module


def test_words_hang_on_the_mask_through_clip(built):
    _, model, params, batch = built

    @jax.jit
    def words(masks):
        changed = batch._replace(masks=masks)
        return model.apply({"params": params}, changed, 1.0, rngs={"mask": jax.random.key(0)}).text_logits

    assert np.abs(words(jnp.zeros_like(batch.masks)) - words(jnp.ones_like(batch.masks))).max() > 1e-4


def test_rcc_moves_the_mask_although_clip_is_not_differentiated(regions):
    """The gradient of the region's embedding reaches the predicted mask, and none reaches the picture CLIP sees."""
    module, features, masks, params = regions
    likeness = jax.jit(jax.grad(lambda predicted: module.apply(params, features, masks, predicted).embedding[0, 0]))
    gradient = likeness(masks)
    assert np.abs(gradient[0]).max() > 0
    assert np.abs(gradient[1]).max() == 0  # another frame
    frames = jnp.full((2, 32, 32, 3), 9, jnp.uint8)
    of_picture = jax.grad(lambda m: clip_regions.clip_pictures(frames, m, 32, masked=True).sum())(masks)
    assert np.abs(of_picture).max() == 0


def test_an_empty_mask_gives_the_null_summary(regions):
    module, features, masks, params = regions
    region = jax.jit(module.apply)(params, features, masks * 0, masks * 0)
    for summary in region.summary:
        np.testing.assert_allclose(summary, params["params"]["null"], atol=1e-5)
    np.testing.assert_allclose(region.bias[:, :-1], np.log(1e-4), atol=1e-4)
    np.testing.assert_allclose(region.embedding, 0.0, atol=1e-3)


def test_patches_outside_the_mask_are_black():
    frames = jnp.full((1, 32, 32, 3), 200, jnp.uint8)
    masks = jnp.zeros((1, 32, 32)).at[:, :16].set(1.0)
    seen = clip_regions.clip_pictures(frames, masks, 32, masked=True)
    whole, black = (images.standardized(jnp.full((1, 1, 1, 3), value), images.CLIP)[0, 0, 0] for value in (200.0, 0.0))
    np.testing.assert_allclose(seen[0, 0, 0], whole, atol=1e-5)
    np.testing.assert_allclose(seen[0, 31, 31], black, atol=1e-5)


@pytest.mark.full
def test_prediction_is_that_of_the_teacher_forced_pass(built):
    _, model, params, batch = built
    params = jax.tree.map(lambda x: x, params)
    # Untrained, it would write [PAD], which the experts pass over.
    params["text_decoder"]["head_bias"] = params["text_decoder"]["head_bias"].at[0].set(-1e4)
    params["text_decoder"]["lm"]["head"]["bias"] = params["text_decoder"]["lm"]["head"]["bias"].at[0].set(-1e4)
    masks, ids = decoding.make_describe(model)(params, batch.frames, batch.log_mel, batch.frame_valid)
    outputs = jax.jit(lambda: model.apply({"params": params}, batch._replace(text_ids=ids)))()
    likeliest, written = np.asarray(outputs.text_logits.argmax(-1)), np.asarray(ids)
    ended = np.cumsum(written == 2, axis=-1) - (written == 2) > 0
    np.testing.assert_array_equal(written[..., 1:][~ended[..., 1:]], likeliest[~ended[..., 1:]])
    np.testing.assert_allclose(masks, jax.nn.sigmoid(outputs.mask_logits), atol=1e-5)


def test_shares_of_patches_by_hand():
    mask = np.zeros((1, 8, 8), np.float32)
    mask[0, :4, :2] = 1.0
    np.testing.assert_allclose(clip_regions.share_of_patches(jnp.asarray(mask), 2)[0, :, 0], [0.5, 0, 0, 0])


@pytest.mark.parametrize(("depth", "levels"), [(12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (2, (0, 1))])
def test_levels_are_spread_over_the_depth(depth, levels):
    assert clip_regions.levels_of(depth) == levels
