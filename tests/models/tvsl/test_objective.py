"""The four losses of T-VSL, worked by hand, and what must not change them."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.config import sizes
from ssu_jax.models.tvsl import objective
from ssu_jax.models.tvsl.tvsl import Answers

ALL = jnp.ones(3, bool)


def answers(b: int = 2, k: int = 2, u: int = 3, seed: int = 0) -> Answers:
    rng = np.random.default_rng(seed)

    def units():
        x = rng.normal(size=(b, k, 4))
        return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)

    logits = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((b, u), (b, k, u), (b, k, u)))
    return Answers(*logits, units(), units(), jnp.float32(5.0))


def softmax_loss(logits, right):
    return float(np.log(np.exp(logits).sum()) - logits[right])


def test_every_term_is_the_mean_worked_by_hand():
    found, sources = answers(b=1), jnp.asarray([[2, 0]])
    terms = objective.terms(found, sources, ALL, rivals_of_one_class=True)
    said, sounding = np.asarray(found.detection[0], float), np.array([1.0, 0.0, 1.0])
    probability = 1 / (1 + np.exp(-said))
    entropy = -(sounding * np.log(probability) + (1 - sounding) * np.log(1 - probability))
    assert float(terms["detection"]) == pytest.approx(entropy.mean(), abs=1e-5)
    image, sound = (np.asarray(each[0], float) for each in (found.image_classes, found.sound_classes))
    assert float(terms["image"]) == pytest.approx((softmax_loss(image[0], 2) + softmax_loss(image[1], 0)) / 2, abs=1e-5)
    assert float(terms["sound"]) == pytest.approx((softmax_loss(sound[0], 2) + softmax_loss(sound[1], 0)) / 2, abs=1e-5)
    table = 5.0 * np.asarray(found.image_pairs[0], float) @ np.asarray(found.sound_pairs[0], float).T
    both = [softmax_loss(side[i], i) for side in (table, table.T) for i in range(2)]
    assert float(terms["pairs"]) == pytest.approx(np.mean(both), abs=1e-5)


def test_rows_that_fill_a_batch_change_nothing():
    whole, sources = answers(b=3), jnp.asarray([[2, 0], [1, 2], [-1, -1]])
    without = Answers(*(x[:2] for x in whole[:5]), whole.pair_scale)
    first = objective.terms(whole, sources, ALL)
    second = objective.terms(without, sources[:2], ALL)
    for name in objective.TERMS:
        assert float(first[name]) == pytest.approx(float(second[name]), abs=1e-6)


def test_pairs_of_one_class_share_the_target_and_are_rivals_only_as_released():
    found = answers()
    table = (
        5.0 * np.asarray(found.image_pairs, float).reshape(4, 4) @ np.asarray(found.sound_pairs, float).reshape(4, 4).T
    )
    sources = jnp.asarray([0, 1, 0, 2])
    released = np.asarray(objective.contrast(found, sources, rivals_of_one_class=True))
    corrected = np.asarray(objective.contrast(found, sources, rivals_of_one_class=False))
    assert released[1] == pytest.approx(corrected[1], abs=1e-5)
    by_hand = [(softmax_loss(side[0], 0) + softmax_loss(side[0], 2)) / 2 for side in (table, table.T)]
    assert corrected[0] == pytest.approx(np.mean(by_hand), abs=1e-4)
    assert released[0] == pytest.approx((softmax_loss(table[0], 0) + softmax_loss(table.T[0], 0)) / 2, abs=1e-4)


def test_classes_held_out_are_neither_targets_nor_rivals():
    found, sources = answers(), jnp.asarray([[1, 0], [0, 1]])
    allowed = jnp.asarray([True, True, False])
    before = objective.terms(found, sources, allowed)
    louder = found._replace(
        detection=found.detection.at[:, 2].add(50.0),
        image_classes=found.image_classes.at[..., 2].add(50.0),
        sound_classes=found.sound_classes.at[..., 2].add(50.0),
    )
    after = objective.terms(louder, sources, allowed)
    for name in objective.TERMS:
        assert float(after[name]) == pytest.approx(float(before[name]), abs=1e-6)
    assert float(objective.terms(louder, sources, ALL)["image"]) > float(before["image"]) + 10


def test_the_loss_is_the_sum_of_four_terms_of_unit_weight_and_knows_what_is_held_out():
    from ssu_jax.types import Mixtures

    config = sizes.tvsl()
    config.data.classes, config.tvsl.held_out = ("bell", "dog", "drum"), ("drum",)
    found, sources = answers(), jnp.asarray([[1, 0], [0, 1]])
    batch = Mixtures(None, None, sources, None, None, None, None)
    total, terms = objective.total_loss(found, batch, config)
    assert set(terms) == set(objective.TERMS)
    assert float(total) == pytest.approx(sum(map(float, terms.values())), abs=1e-6)
    wanted = objective.terms(found, sources, jnp.asarray([True, True, False]))
    assert float(terms["image"]) == pytest.approx(float(wanted["image"]), abs=1e-6)
