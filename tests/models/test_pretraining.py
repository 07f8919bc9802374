"""Pre-training: what is hidden, what is contrasted, and that it is SSUFormer's own encoders that learn."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax import models
from ssu_jax.config import Config, PretrainingConfig, sizes
from ssu_jax.config.encoders import pvt_v2, vggish
from ssu_jax.models.pretraining import objective, squares
from ssu_jax.models.pretraining.pretraining import Hidden

LOUD = 2  # the loudest second of every clip of `inputs`


def pretraining(config: Config) -> Config:
    config.family = "pretraining"
    config.pretraining.width = config.pretraining.embedding_width = 8
    return config


def inputs(num_clips: int = 3):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (num_clips, 4, 32, 32, 3)).astype(np.uint8)
    log_mel = rng.normal(-1.0, 1.0, (num_clips, 4, 96, 64)).astype(np.float32)
    log_mel[:, LOUD] += 1.0
    return frames, log_mel, np.ones((num_clips, 4), bool)


@pytest.fixture(scope="module")
def tiny():
    """Views of a batch, compiled once: (params, views(params, *inputs, seed))."""
    config = pretraining(sizes.tiny())
    config.model.visual.depths = (1, 1, 1, 1)
    model = models.build(config)

    @jax.jit
    def views(params, frames, log_mel, valid, seed):
        rngs = {"mask": jax.random.key(seed)}
        return model.apply({"params": params}, frames, log_mel, valid, method="views", rngs=rngs)

    return models.init(model, config, jax.random.key(0)), lambda *told, seed=0: views(*told, seed)


def test_squares_are_cut_in_row_order():
    image = jnp.arange(32 * 48 * 2.0).reshape(1, 32, 48, 2)
    found = squares.cut(image)
    assert found.shape == (1, 6, 512)
    np.testing.assert_array_equal(found[0, 4].reshape(16, 16, 2), image[0, 16:, 16:32])


def test_the_same_number_of_squares_is_hidden_in_every_image_and_others_in_each():
    hidden = np.asarray(squares.chosen(jax.random.key(0), 8, 24, 0.4))
    assert (hidden.sum(axis=1) == 10).all()
    assert len({row.tobytes() for row in hidden}) == 8
    assert np.asarray(squares.chosen(jax.random.key(0), 2, 4, 0.05)).sum() == 2  # at least one
    assert np.asarray(squares.chosen(jax.random.key(0), 2, 4, 0.95)).sum() == 6  # never all


def test_hidden_squares_hold_the_mean_of_what_is_seen():
    image = jnp.concatenate([jnp.full((1, 16, 16, 1), 3.0), jnp.full((1, 16, 16, 1), 5.0),
                             jnp.full((1, 16, 16, 1), 100.0)], axis=2)  # fmt: skip
    seen = squares.hide(image, jnp.array([[False, False, True]]))
    np.testing.assert_allclose(seen[0, :, 32:], 4.0)
    np.testing.assert_array_equal(seen[0, :, :32], image[0, :, :32])


def test_a_square_is_predicted_with_mean_0_and_deviation_1_but_an_even_one_is_not_its_noise():
    rng = np.random.default_rng(0)
    image = jnp.concatenate([rng.uniform(size=(1, 16, 16, 1)), 0.5 + 1e-4 * rng.uniform(size=(1, 16, 16, 1))], axis=2)
    wanted = np.asarray(squares.targets(image))
    np.testing.assert_allclose(wanted.mean(axis=2), 0.0, atol=1e-4)
    np.testing.assert_allclose(wanted[0, 0].std(), 1.0, rtol=1e-2)
    assert wanted[0, 1].std() < 0.01


def test_hidden_squares_alone_cost_something():
    predicted = jnp.array([[[1.0, 2.0], [7.0, 7.0], [0.0, 4.0]]])
    hidden = jnp.array([[True, False, True]])
    # ((1 + 4) / 2 + (0 + 16) / 2) / 2
    np.testing.assert_allclose(objective.hidden_error(Hidden(hidden, predicted, jnp.zeros((1, 3, 2)))), [5.25])


def test_the_contrast_by_hand():
    similarity = jnp.log(jnp.array([[2.0, 1.0, 9.0], [3.0, 4.0, 9.0], [9.0, 9.0, 9.0]]))
    entropy, hits = objective.contrast(similarity, jnp.array([True, True, False]))  # the third clip is silent
    # Rows are pictures: 2 of 2 + 1 and 4 of 3 + 4; columns are sounds: 2 of 2 + 3 and 4 of 1 + 4.
    wanted = [-0.5 * (np.log(2 / 3) + np.log(2 / 5)), -0.5 * (np.log(4 / 7) + np.log(4 / 5))]
    np.testing.assert_allclose(entropy[:2], wanted, rtol=1e-6)
    np.testing.assert_allclose(hits[:2], [0.5, 1.0])
    assert np.asarray(objective.contrast(jnp.zeros((3, 3)), jnp.ones(3, bool))[1]).sum() == 0  # a tie is no hit


def test_a_mean_is_taken_over_what_counts():
    found = objective.Term(jnp.array([3.0, 100.0, 5.0]), jnp.array([1.0, 0.0, 1.0]))
    assert objective._mean(found) == 4.0
    assert objective._mean(objective.Term(jnp.ones(2), jnp.zeros(2))) == 0.0


def test_the_order_of_the_clips_does_not_matter(tiny):
    params, views = tiny
    order = np.array([2, 0, 1])
    parts = inputs()
    one, other = views(params, *parts), views(params, *(part[order] for part in parts))
    np.testing.assert_allclose(other.similarity, np.asarray(one.similarity)[order][:, order], atol=1e-5)
    before, after = (objective.terms(each)["pairs"].value for each in (one, other))
    np.testing.assert_allclose(after, np.asarray(before)[order], atol=1e-5)


def test_the_loudest_second_that_is_one_is_contrasted(tiny):
    params, views = tiny
    frames, log_mel, valid = inputs()
    similarity = views(params, frames, log_mel, valid).similarity
    other = frames.copy()
    other[:, [0, 1, 3]] = 0
    np.testing.assert_array_equal(views(params, other, log_mel, valid).similarity, similarity)
    assert np.abs(views(params, 255 - frames, log_mel, valid).similarity - similarity).max() > 1e-3
    without = valid.copy()
    without[:, LOUD] = False
    assert np.abs(views(params, frames, log_mel, without).similarity - similarity).max() > 1e-3


def test_a_clip_without_sound_or_second_is_in_no_pair_and_moves_no_other(tiny):
    params, views = tiny
    frames, log_mel, valid = inputs()
    log_mel[1] = -4.6
    valid[2] = False
    found = views(params, frames, log_mel, valid)
    assert found.paired.tolist() == [True, False, False]
    assert found.valid.tolist() == [True, True, False]
    frames[1:] = 0
    np.testing.assert_allclose(views(params, frames, log_mel, valid).similarity[0, 0], found.similarity[0, 0])
    weights = {name: np.asarray(term.weight).tolist() for name, term in objective.terms(found).items()}
    assert weights == {"pairs": [1, 0, 0], "recall": [1, 0, 0], "pictures": [1, 1, 0], "sounds": [1, 1, 0]}


def test_a_key_hides_other_squares_each_time(tiny):
    params, views = tiny
    first, again, other = (views(params, *inputs(), seed=seed).sounds.hidden for seed in (1, 1, 2))
    assert (first == again).all()
    assert not (first == other).all()


def test_each_term_looks_at_its_encoders(tiny):
    params, views = tiny
    rng = np.random.default_rng(1)
    before = objective.total_loss(views(params, *inputs()), PretrainingConfig())[1]
    reached = {}
    for encoder in ("visual_encoder", "audio_encoder"):
        other = params | {
            encoder: jax.tree.map(
                lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape).astype(np.float32), params[encoder]
            )
        }
        after = objective.total_loss(views(other, *inputs()), PretrainingConfig())[1]
        reached[encoder] = {name for name in before if abs(after[name] - before[name]) > 1e-4}
    assert reached == {"visual_encoder": {"pairs", "pictures"}, "audio_encoder": {"pairs", "sounds"}}


@pytest.mark.parametrize("kind", ["own", "published"])
def test_its_encoders_are_those_of_ssuformer(kind, monkeypatch):
    config = sizes.tiny()
    if kind == "published":
        config.model.visual.kind, config.model.audio.kind = "pvt_v2", "vggish"
        config.model.scan_blocks = True
        monkeypatch.setitem(pvt_v2.VARIANTS, "b5", pvt_v2.PVTv2Config((4, 4, 4, 4), (1, 2, 1, 1), (1, 1, 1, 1),
                                                                      reductions=(1, 1, 1, 1)))  # fmt: skip
        monkeypatch.setitem(vggish.VARIANTS, "torch", vggish.VGGishConfig(widths=(4, 4, 4, 4), hidden=8))

    def encoders(config: Config, method: str) -> dict:
        model = models.build(config)
        init = functools.partial(model.init, jax.random.key(0), method=method)
        shapes = jax.eval_shape(init, *inputs())["params"]
        return {
            name: jax.tree.map(lambda leaf: leaf.shape, shapes[name]) for name in ("visual_encoder", "audio_encoder")
        }

    assert encoders(pretraining(copy.deepcopy(config)), "views") == encoders(config, "fuse")
