"""SSUFormer as a whole: its switches, and what must not depend on what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax import losses, models
from ssu_jax.config import sizes
from ssu_jax.models import decoding

SWITCHES = {
    "full": {},
    "seg_only": {"seg_only": True},
    "text_only": {"text_only": True},
    "no_mcm": {"mcm": False},
    "no_rcc": {"rcc": False},
    "no_mohe": {"mohe": False},
}


@pytest.fixture(scope="module")
def tiny():
    config = sizes.tiny()
    model = models.build(config)
    return config, model, models.init(model, config, jax.random.key(0)), random_batch(config, 2)


def random_batch(config, size):
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


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_gives_its_parts_and_no_other(name):
    config = sizes.tiny()
    for switch, value in SWITCHES[name].items():
        setattr(config.model, switch, value)
    model, batch = models.build(config), random_batch(config, 1)

    def run():  # traced, not compiled: this is about structure
        params = model.init({"params": jax.random.key(0)}, batch)["params"]
        outputs = model.apply({"params": params}, batch, train=True)
        described = decoding.make_describe(model)(params, batch.frames, batch.log_mel, batch.frame_valid)
        return params, outputs, losses.total_loss(outputs, batch, config.losses)[0], described

    params, outputs, total, (masks, ids) = jax.eval_shape(run)
    assert total.shape == ()
    assert (outputs.mask_logits is None) == (name == "text_only")
    assert (outputs.text_logits is None) == (name == "seg_only")
    assert (outputs.router is None) == (name in ("no_mohe", "seg_only"))
    assert (outputs.region_embedding is None) == (name in ("no_rcc", "no_mcm", "seg_only", "text_only"))
    assert ("mask_collaboration" in params) == (name not in ("no_mcm", "seg_only", "text_only"))
    assert ("experts_0" in params.get("text_decoder", {})) == (name not in ("no_mohe", "seg_only"))
    assert masks.shape == batch.masks.shape
    assert ids.shape == batch.text_ids.shape


def test_a_clip_does_not_depend_on_its_batch(tiny):
    _, model, params, batch = tiny
    describe = decoding.make_describe(model)
    together, words = describe(params, batch.frames, batch.log_mel, batch.frame_valid)
    alone, alone_words = describe(params, *(x[1:] for x in (batch.frames, batch.log_mel, batch.frame_valid)))
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)
    np.testing.assert_array_equal(words[1], alone_words[0])


def test_invalid_frames_change_nothing(tiny):
    _, model, params, batch = tiny
    valid = batch.frame_valid.at[:, 3:].set(False)
    other = batch._replace(
        frames=batch.frames.at[:, 3:].set(255), log_mel=batch.log_mel.at[:, 3:].set(4.0), frame_valid=valid
    )
    apply = jax.jit(lambda b: model.apply({"params": params}, b))
    before, after = apply(batch._replace(frame_valid=valid)), apply(other)
    np.testing.assert_allclose(before.mask_logits[:, :3], after.mask_logits[:, :3], atol=1e-5)
    np.testing.assert_allclose(before.text_logits[:, :3], after.text_logits[:, :3], atol=1e-4)


def test_the_other_seconds_are_heard(tiny):
    """The query token generator attends to the whole clip, most of all to its own second."""
    _, model, params, batch = tiny
    apply = jax.jit(lambda b: model.apply({"params": params}, b).mask_logits)
    change = apply(batch._replace(log_mel=batch.log_mel.at[:, 0].add(3.0))) - apply(batch)
    own, other = np.abs(change[:, 0]).max(), np.abs(change[:, 1]).max()
    assert own > other > 0


def test_greedy_takes_the_likeliest_word_of_the_teacher_forced_pass(tiny):
    """Words fed back one by one through the caches give the logits of the whole sentence at once."""
    config, model, params, batch = tiny
    params = jax.tree.map(lambda x: x, params)
    for head in (params["text_decoder"]["head"], params["text_decoder"]["lm"]["head"]):
        head["bias"] = head["bias"].at[0].set(-1e4)  # untrained, it would write [PAD], which the experts pass over
    masks, ids = decoding.make_describe(model)(params, batch.frames, batch.log_mel, batch.frame_valid)
    del masks
    outputs = jax.jit(lambda p: model.apply({"params": p}, batch._replace(text_ids=ids)))(params)
    likeliest = np.asarray(outputs.text_logits.argmax(-1))
    ids = np.asarray(ids)
    ended = np.cumsum(ids == 2, axis=-1) - (ids == 2) > 0
    assert ids.shape[-1] == config.data.max_text_tokens
    np.testing.assert_array_equal(ids[..., 1:][~ended[..., 1:]], likeliest[~ended[..., 1:]])
    assert (ids[ended] == 0).all()


def test_mcm_sees_the_true_mask_when_told_to(tiny):
    _, model, params, batch = tiny

    @jax.jit
    def words(masks, mix):
        changed = batch._replace(masks=masks)
        return model.apply({"params": params}, changed, mix, rngs={"mask": jax.random.key(0)}).text_logits

    empty, full = jnp.zeros_like(batch.masks), jnp.ones_like(batch.masks)
    assert np.abs(words(empty, 1.0) - words(full, 1.0)).max() > 1e-3
    np.testing.assert_array_equal(words(empty, 0.0), words(full, 0.0))


@pytest.mark.full
def test_bfloat16_stays_near_float32(tiny):
    config, model, params, batch = tiny
    half = sizes.tiny()
    half.model.dtype = "bfloat16"
    full, rough = (jax.jit(m.apply)({"params": params}, batch) for m in (model, models.build(half)))
    assert rough.mask_logits.dtype == jnp.float32
    assert np.abs(full.mask_logits - rough.mask_logits).mean() < 0.1 * np.abs(full.mask_logits).mean()
    assert config.model.dtype == "float32"
