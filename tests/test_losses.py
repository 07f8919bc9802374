"""Every loss term against a case worked by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax import losses, models
from ssu_jax.config import LossConfig, sizes
from ssu_jax.types import Outputs


def batch_of(**fields):
    if "frame_valid" in fields:
        fields = dict.fromkeys(("mask_known", "text_known", "source_known"), fields["frame_valid"]) | fields
    return models.example_batch(sizes.tiny())._replace(**fields)


def valid(*shape):
    return jnp.ones(shape, bool)


def test_frames_without_labels_cost_nothing_and_their_content_changes_nothing():
    config, flags = sizes.tiny(), jnp.array([[True, False]])
    u, l, v = len(config.data.classes), 4, 7
    shapes = {"mask_logits": (1, 2, 8, 8), "text_logits": (1, 2, l - 1, v), "audible_logits": (1, 2, u),
              "semantic_logits": (1, 2, 2, 2, u + 1)}  # fmt: skip
    outputs = Outputs(**{name: jnp.ones(shape) for name, shape in shapes.items()})
    known = dict.fromkeys(("mask_known", "text_known", "source_known"), flags)
    batch = batch_of(
        frame_valid=valid(1, 2), masks=jnp.zeros((1, 2, 8, 8), jnp.uint8), text_ids=jnp.full((1, 2, l), 4),
        audible_labels=jnp.zeros((1, 2, u), jnp.uint8), semantic=jnp.zeros((1, 2, 8, 8), jnp.int8), **known,
    )  # fmt: skip
    other = batch._replace(
        masks=batch.masks.at[:, 1].set(1), text_ids=batch.text_ids.at[:, 1].set(5),
        audible_labels=batch.audible_labels.at[:, 1].set(1), semantic=batch.semantic.at[:, 1].set(2),
    )  # fmt: skip
    before, terms = losses.total_loss(outputs, batch, config.losses)
    assert float(before) == float(losses.total_loss(outputs, other, config.losses)[0])
    everything = other._replace(**dict.fromkeys(known, valid(1, 2)))
    seen = losses.total_loss(outputs, everything, config.losses)[1]
    assert all(float(seen[name]) != float(terms[name]) for name in ("mask", "audible", "semantic"))


def test_mask_terms_by_hand():
    # One frame of 1 x 2: the sounding pixel at p = 1/2, the silent one at p = 1/4.
    logits = jnp.array([0.0, -math.log(3.0)]).reshape(1, 1, 1, 2)
    batch = batch_of(masks=jnp.array([1, 0], jnp.uint8).reshape(1, 1, 1, 2), frame_valid=valid(1, 1))
    terms = losses.mask_terms(logits, batch, LossConfig(focal=False))
    entropy = (math.log(2.0) - math.log(0.75)) / 2
    assert float(terms["mask"]) == pytest.approx(losses.MASK_SCALE * entropy, rel=1e-5)
    # Dice: 1 - (2 * 0.5 + 1) / (0.75 + 1 + 1)
    assert float(terms["dice"]) == pytest.approx(1 - 2.0 / 2.75, rel=1e-5)
    focal = losses.mask_terms(logits, batch, LossConfig(focal=True, focal_gamma=2.0))
    weighted = (0.5**2 * math.log(2.0) - 0.25**2 * math.log(0.75)) / 2
    assert float(focal["mask"]) == pytest.approx(losses.MASK_SCALE * weighted, rel=1e-5)


def test_silent_and_invalid_frames_take_no_part_in_dice():
    logits = jnp.full((1, 3, 2, 2), 5.0)
    masks = jnp.zeros((1, 3, 2, 2), jnp.uint8).at[0, 0].set(1).at[0, 2].set(1)
    frame_valid = jnp.array([[True, True, False]])
    one = losses.mask_terms(logits[:, :1], batch_of(masks=masks[:, :1], frame_valid=valid(1, 1)), LossConfig())
    three = losses.mask_terms(logits, batch_of(masks=masks, frame_valid=frame_valid), LossConfig())
    assert float(three["dice"]) == pytest.approx(float(one["dice"]))


def test_caption_loss_by_hand():
    # Two words of a vocabulary of 4, the second is padding: -ln(1/4) alone counts.
    logits, targets = jnp.zeros((1, 1, 2, 4)), jnp.array([[[3, 0]]])
    mask = targets != 0
    assert float(losses.caption_loss(logits, targets, mask, 0.0)) == pytest.approx(math.log(4.0), rel=1e-5)
    assert float(losses.caption_loss(logits, targets, mask, 2.0)) == pytest.approx(0.75**2 * math.log(4.0), rel=1e-5)


def test_semantic_loss_weighs_objects_as_much_as_background_and_skips_the_unknown():
    labels = jnp.zeros((1, 1, 4, 12), jnp.int8).at[..., 4:8].set(2).at[..., 8:].set(-1)
    logits = jnp.zeros((1, 1, 1, 3, 4)).at[0, 0, 0, 1, 2].set(math.log(3.0)).at[0, 0, 0, 2].set(50.0)
    background, thing = math.log(4.0), -math.log(3.0 / 6.0)
    loss = losses.semantic_loss(logits, labels, valid(1, 1))
    assert float(loss) == pytest.approx(0.5 * background + 0.5 * thing, rel=1e-5)


def test_audible_and_scene_losses_by_hand():
    loss = losses.audible_loss(jnp.zeros((1, 2, 3)), jnp.ones((1, 2, 3), jnp.uint8), jnp.array([[True, False]]))
    assert float(loss) == pytest.approx(3 * math.log(2.0), rel=1e-5)
    logits = jnp.array([[0.0, math.log(3.0)], [9.0, 0.0]])
    assert float(losses.scene_loss(logits, jnp.array([1, -1]))) == pytest.approx(-math.log(0.75), rel=1e-5)


def test_consistency_is_a_distance_and_contrast_prefers_the_pair():
    unit = jnp.eye(2)[None]
    ids = jnp.array([[[1, 4, 2], [1, 5, 2]]])
    masks = jnp.ones((1, 2, 2, 2), jnp.uint8)
    batch = batch_of(text_ids=ids, masks=masks, frame_valid=valid(1, 2))

    def terms(seen, written):
        outputs = Outputs(None, None, region_embedding=seen, text_embedding=written, embedding_scale=jnp.float32(10.0))
        return losses.consistency_terms(outputs, batch)

    right, wrong = terms(unit, unit), terms(unit, unit[:, ::-1])
    assert float(right["rcc"]) == pytest.approx(1e-3, abs=1e-3)
    assert float(wrong["rcc"]) == pytest.approx(math.sqrt(2.0), rel=1e-3)
    assert float(right["contrastive"]) < 0.01 < 5.0 < float(wrong["contrastive"])


def test_equal_sentences_share_the_target():
    same = batch_of(
        text_ids=jnp.array([[[1, 4, 2], [1, 4, 2]]]), masks=jnp.ones((1, 2, 2, 2), jnp.uint8), frame_valid=valid(1, 2)
    )
    outputs = Outputs(
        None,
        None,
        region_embedding=jnp.eye(2)[None],
        text_embedding=jnp.eye(2)[None],
        embedding_scale=jnp.float32(0.0),
    )
    assert float(losses.consistency_terms(outputs, same)["contrastive"]) == pytest.approx(math.log(2.0), rel=1e-5)


def test_weight_zero_takes_a_term_out():
    config = sizes.tiny()

    model = models.build(config)
    batch = models.example_batch(config)
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), batch)[0])  # nothing is compiled
    outputs = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype), shapes)
    total, terms = losses.total_loss(outputs, batch, config.losses)
    assert set(terms) == {
        "mask", "dice", "semantic", "caption", "language_model", "rcc", "contrastive", "audible", "scene",
        "balance", "router_z", "router",
    }  # fmt: skip
    assert terms.pop("router")["chosen"].shape == (config.model.text_layers, config.model.moe.num_experts)
    expected = sum(getattr(config.losses, name) * float(value) for name, value in terms.items())
    assert float(total) == pytest.approx(expected, rel=1e-5)
    config.losses.audible = 0.0
    less, _ = losses.total_loss(outputs, batch, config.losses)
    assert float(total - less) == pytest.approx(0.5 * float(terms["audible"]), rel=1e-3)
    assert np.isfinite(float(total))
