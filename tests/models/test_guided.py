"""Guidance by words, part by part, on numbers small enough to work out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax import models
from ssu_jax.config import sizes
from ssu_jax.config.encoders import clip
from ssu_jax.models import decoding, guided
from ssu_jax.models.guided import Guide
from ssu_jax.models.ssuformer.text_decoder import Context
from ssu_jax.tokenizer import EOS

TINY_CLIP = clip.CLIPConfig(
    vision=clip.CLIPVisionConfig(
        image_size=32, patch_size=8, width=16, depth=4, num_heads=2, hidden=16, embedding_width=12
    ),
    text=clip.CLIPTextConfig(vocab_size=64, length=32, width=16, depth=1, num_heads=2, hidden=16, embedding_width=12),
)


def semantic_of(classes, num_classes):
    """Logits of [f, y, x] classes; background is likeliest everywhere, and no object."""
    logits = 5.0 * (np.asarray(classes)[..., None] == np.arange(num_classes))
    return jnp.asarray(np.concatenate([np.full((*logits.shape[:-1], 1), 9.0), logits], -1), jnp.float32)


def test_parts_are_the_mask_cut_by_class():
    rng = np.random.default_rng(0)
    masks = jnp.asarray(rng.random((2, 4, 4)), jnp.float32)
    classes = rng.integers(0, 3, (2, 4, 4))
    parts = np.asarray(guided.parts_of(masks, semantic_of(classes, 3)))
    assert parts.shape == (3, 2, 4, 4)
    np.testing.assert_array_equal(parts.sum(0), masks)
    for frame in range(2):
        wanted = [np.where(classes[frame] == number, masks[frame], 0) for number in range(3)]
        wanted.sort(key=lambda part: -part.sum())
        np.testing.assert_array_equal(parts[:, frame], wanted)


def test_of_many_classes_the_largest_are_parts():
    classes = np.zeros((1, 6, 6), int)
    classes[0, 0], classes[0, 1, :3] = np.arange(6) + 1, 7
    parts = np.asarray(guided.parts_of(jnp.ones((1, 6, 6)), semantic_of(classes, 20)))
    assert len(parts) == guided.MOST_PARTS
    np.testing.assert_array_equal(parts.sum((1, 2, 3)), [27, 3, 1, 1, 1, 1, 1, 1])


def guide_of(asked, rivals, num_texts=4):
    is_rival = np.zeros((len(asked), num_texts), bool)
    for row, places in zip(is_rival, rivals, strict=True):
        row[places] = True
    return Guide(None, jnp.array(asked), jnp.asarray(is_rival), None, None)


def test_a_part_is_named_by_a_text_above_all_its_rivals():
    likeness = jnp.array([[[0.5, 0.4, 0.9, 0.1]], [[0.5, 0.6, 0.0, 0.7]]])  # 2 parts of 1 frame, 4 texts
    np.testing.assert_array_equal(guided.is_named(likeness, guide_of([0], [[1, 3]])), [[True], [False]])
    np.testing.assert_array_equal(guided.is_named(likeness, guide_of([0, 3], [[1, 2], [0, 1]])), [[False], [True]])
    np.testing.assert_array_equal(guided.is_named(likeness, guide_of([0, 3], [[1], [0]])), [[True], [True]])


def test_names_of_what_is_left_out_are_no_words():
    words = np.zeros((3, 8), bool)
    words[0, 4] = words[1, 5] = words[2, [5, 6]] = True  # word 5 is in two names
    told = jnp.array([[True, True, False], [False, True, False], [False, False, False]])
    forbidden = np.asarray(guided.forbidden_words(told, jnp.asarray(words)))
    np.testing.assert_array_equal(np.flatnonzero(forbidden[0]), [6])
    np.testing.assert_array_equal(np.flatnonzero(forbidden[1]), [4, 6])
    np.testing.assert_array_equal(np.flatnonzero(~forbidden[2]), [EOS])


class Likes:
    """Would always write the same: [EOS] first, then words 7, 6, 5."""

    def start_words(self, context):
        return ()

    def next_word(self, ids, context, state, position):
        preference = jnp.zeros(8).at[jnp.array([EOS, 7, 6, 5])].set(jnp.array([9.0, 8.0, 7.0, 6.0]))
        return jnp.broadcast_to(preference, (len(ids), 1, 8)), state


@pytest.mark.parametrize("beams", [1, 2])
def test_the_writer_says_something_and_nothing_forbidden(beams):
    """Three frames with as many sentences each as there are beams."""
    forbidden = jnp.zeros((3, 8), bool).at[0, 7].set(True).at[2].set(jnp.arange(8) != EOS)
    writer = guided._Telling(Likes(), forbidden, jnp.array([True, True, False]))
    ids = jnp.ones((3 * beams, 1), jnp.int32)
    assert isinstance(writer, decoding.WritesWords)
    nothing = Context(None, None, None)
    for position, wanted in ((0, [6, 7, EOS]), (1, [EOS, EOS, EOS])):
        logits, _ = writer.next_word(ids, nothing, (), jnp.int32(position))
        np.testing.assert_array_equal(logits[:, 0].argmax(-1), np.repeat(wanted, beams))


@pytest.mark.full
@pytest.mark.parametrize("region_encoder", ["cells", "clip_masked", "clip_pooled"])
def test_the_whole_program_with_every_region_encoder(region_encoder, monkeypatch):
    """A text without rivals names all there is; a text that is its own rival names nothing."""
    monkeypatch.setitem(clip.VARIANTS, "tiny", TINY_CLIP)
    config = sizes.tiny()
    config.data.classes = config.data.classes[: guided.MOST_PARTS]
    config.model.region_encoder, config.model.clip.variant = region_encoder, "tiny"
    model = models.build(config.validate())
    params = models.init(model, config, jax.random.key(0))
    params["mask_head"]["embedding"]["bias"] += 1.0  # so that something is masked
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (1, 4, 32, 32, 3), np.uint8)
    inputs = params, frames, rng.normal(size=(1, 4, 96, 64)).astype(np.float32), np.ones((1, 4), bool)
    ids = rng.integers(4, 40, (2, config.data.max_text_tokens)).astype(np.int32)
    texts = guided.make_embed(model)(params, ids, None)
    np.testing.assert_allclose((np.asarray(texts) ** 2).sum(1), 1, atol=1e-4)
    num_classes = len(config.data.classes)
    words = np.zeros((num_classes, config.model.vocab_size), bool)
    guide = Guide(texts, np.array([0]), np.zeros((1, 2), bool), np.zeros(num_classes, np.int32), words)
    describe = guided.make_describe(model)
    masks, _ = decoding.make_describe(model)(*inputs)
    assert (masks > 0.5).any()
    kept, said = describe(*inputs, guide)
    assert (kept <= masks).all()
    np.testing.assert_array_equal((kept > 0.5), (masks > 0.5))
    assert (said[:, :, 1] != EOS).all()
    kept, said = describe(*inputs, guide._replace(rivals=np.array([[True, False]])))
    assert not kept.any()
    np.testing.assert_array_equal(said[:, :, 1], EOS)
