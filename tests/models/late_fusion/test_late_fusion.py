"""Tags and segments joined: what is heard and seen sounds, and nothing else. The networks alone: tests/encoders."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax import models
from ssu_jax.config import sizes
from ssu_jax.config.late_fusion import LateFusionConfig
from ssu_jax.config.published_classes import VOC, audioset
from ssu_jax.models.late_fusion import late_fusion
from ssu_jax.models.late_fusion.class_map import class_map
from ssu_jax.models.late_fusion.late_fusion import LateFusion, steady
from ssu_jax.models.late_fusion.sentences import Sentences


@dataclasses.dataclass
class Config(LateFusionConfig):
    __hash__ = object.__hash__  # to keep programs by


CONFIG = Config(image_size=65)
CELLS, MOST = 12, 6  # cells a side; seconds


def scores(*seconds):
    """YAMNet's scores: a dictionary of AudioSet name -> score for every second."""
    table = np.full((len(seconds), len(audioset())), 0.001, np.float32)
    for row, heard in zip(table, seconds, strict=True):
        for name, score in heard.items():
            row[audioset().index(name)] = score
    return table


def segments(*seconds):
    """DeepLab's coarse logits: a dictionary of VOC name -> (rows, columns) for every second; else background."""
    logits = np.zeros((len(seconds), CELLS, CELLS, len(VOC)), np.float32)
    logits[..., 0] = 2.0
    for frame, seen in zip(logits, seconds, strict=True):
        for name, (rows, columns) in seen.items():
            frame[rows, columns, VOC.index(name)] = 6.0
    return logits


LEFT, RIGHT = (slice(2, 10), slice(0, 4)), (slice(2, 10), slice(8, 12))


@functools.cache
def program(config, t):
    """One for all tests: seconds are padded to MOST of them."""
    model = LateFusion(config)

    def run(module, tags, coarse, levels):
        found = module._fuse(tags, levels, coarse, t)
        grey = jnp.full((MOST, 65, 65, 3), 128.0)
        masks = jax.vmap(lambda c, v: late_fusion._mask(c, v, 65))(found.coarse, module._classes(found.active))
        return found, masks > 0, module._facts(found, grey)

    return jax.jit(lambda *given: model.apply({}, *given, method=run))


def fused(tags, coarse, t=MOST, levels=None, config=CONFIG):
    """(what was decided, masks bool [b, y, x], sentences, sounds) of a clip; t: of clips of so many seconds."""
    seconds, levels = len(tags), np.zeros(len(tags)) if levels is None else levels
    parts = (tags, 0.0), (coarse, 0.0), (levels, -np.inf)
    given = [
        jnp.asarray(np.concatenate([part, np.full((MOST - seconds, *np.shape(part)[1:]), rest)]), jnp.float32)
        for part, rest in parts
    ]
    found, masks, rows = program(config, t)(*given)
    rows, words = np.asarray(rows)[:seconds], Sentences(config)
    return found, np.asarray(masks)[:seconds], [words.decode(row) for row in rows], [words.sounds(row) for row in rows]


def test_masks_and_sentences_follow_the_sound():
    dog, both = {"dog": LEFT}, {"dog": LEFT, "person": RIGHT}
    _, masks, sentences, sounds = fused(
        scores({"Dog": 0.9, "Bark": 0.8}, {}, {"Dog": 0.9, "Bark": 0.7}, {"Speech": 0.9}, {"Speech": 0.9, "Dog": 0.5}),
        segments(dog, dog, both, both, both),
        levels=[0.0, -30.0, 0.0, -30.0, 0.0],
    )
    assert sentences == [
        "The grey dog on the left is barking.",
        "",
        "The grey dog on the left is barking.",
        "The person on the right is speaking.",
        "The person on the right is speaking and the grey dog on the left is barking.",
    ]
    assert [mask.any() for mask in masks] == [True, False, True, True, True]
    left, right = masks[0], masks[3]
    assert left[:, 40:].sum() == right[:, :25].sum() == 0
    np.testing.assert_array_equal(masks[2], left)
    np.testing.assert_array_equal(masks[4], left | right)
    assert sounds[0] == [("Dog", True)]
    assert sounds[1] == []
    assert sounds[4] == [("Speech", True), ("Dog", True)]


def test_what_is_not_in_the_picture_has_a_name_and_no_mask():
    _, masks, sentences, sounds = fused(
        scores({"Dog": 0.9}, {"Engine": 0.8, "Waterfall": 0.6}), segments({"person": LEFT}, {})
    )
    assert not masks.any()
    assert sentences == ["", ""]
    assert sounds == [[("Dog", False)], [("Engine", False), ("Waterfall", False)]]


def test_the_level_gate_keeps_silence_empty():
    """Whatever the networks believe."""
    found, masks, sentences, _ = fused(scores({"Dog": 0.9}), segments({"dog": LEFT}), levels=[-50.0])
    assert not found.heard.any()
    assert not masks.any()
    assert sentences == [""]
    level = lambda db: jnp.full((1, 96, 64), np.log(10 ** (db / 20)), jnp.float32)  # noqa: E731
    np.testing.assert_allclose(late_fusion._level(level(-33.0)), -33.0, atol=1e-4)


def test_what_is_heard_decides_between_objects_and_not_between_object_and_background():
    """A pixel that looks half a nat more like a cat is the dog's while a dog barks; the background stays."""
    coarse = segments({"dog": LEFT, "cat": RIGHT})
    coarse[0, 2:10, 8:12, VOC.index("dog")] = 5.5
    coarse[0, 11, :, VOC.index("dog")] = 1.5  # half a nat less than background
    _, masks, _, _ = fused(scores({"Bark": 0.9}), coarse)
    assert masks[0, 12:50, 46:].mean() > 0.9
    assert not masks[0, 62:].any()
    _, masks, _, _ = fused(scores({"Meow": 0.9}), coarse)
    assert masks[0, 12:50, 46:].mean() > 0.9
    assert not masks[0, :, :20].any()


def test_sheep_may_be_taken_for_cows():
    _, masks, sentences, _ = fused(scores({"Sheep": 0.9, "Bleat": 0.5}), segments({"sheep": LEFT, "cow": RIGHT}))
    assert sentences == ["The grey sheep in the middle are bleating."]
    assert masks[0, :, :20].any()
    assert masks[0, :, 46:].any()


def test_one_source_may_do_two_things_and_three_are_joined_by_commas():
    seen = {"person": LEFT, "dog": RIGHT, "bird": (slice(2, 10), slice(5, 7))}
    _, _, sentences, _ = fused(
        scores({"Singing": 0.9, "Guitar": 0.5}, {"Speech": 0.9, "Bark": 0.9, "Bird": 0.9}), segments(seen, seen)
    )
    assert sentences[0] == "The person on the left is singing and playing the guitar."
    assert sentences[1].count(", ") == 1
    assert sentences[1].count(" and ") == 1


def test_a_score_below_its_gate_counts_beside_a_second_above_it():
    """By hand, with gates 0.5 and 0.2: the chain reaches as far as the lower gate holds, and not into the next clip."""
    one = [0.1, 0.3, 0.25, 0.6, 0.3, 0.1, 0.3]
    other = [0.3, 0.3, 0.1, 0.1, 0.1, 0.1, 0.9]
    found = steady(jnp.asarray([*one, *other])[:, None], 0.5, 0.2, 7)[:, 0]
    assert found.tolist() == [False, True, True, True, True, False, False] + [False] * 6 + [True]


def test_a_clip_does_not_depend_on_its_batch():
    tags, coarse = scores({"Dog": 0.15}, {"Dog": 0.9}), segments({"dog": LEFT}, {"dog": LEFT})
    quiet, empty = scores({"Dog": 0.1}, {}), segments({"dog": LEFT}, {})
    _, alone, said, _ = fused(tags, coarse, t=2)
    _, together, said_together, _ = fused(np.concatenate([quiet, tags]), np.concatenate([empty, coarse]), t=2)
    np.testing.assert_array_equal(alone, together[2:])
    assert said == said_together[2:]
    assert said_together[:2] == ["", ""]


def test_a_gap_of_one_second_is_closed_where_it_is_as_loud():
    tags, coarse = scores({"Dog": 0.9}, {}, {"Dog": 0.9}), segments(*[{"dog": LEFT}] * 3)
    for level, wanted in ((-30.0, True), (-36.0, False), (-50.0, False)):
        _, masks, _, _ = fused(tags, coarse, levels=[-20.0, level, 0.0])
        assert masks.any((1, 2)).tolist() == [True, wanted, True], level
    found, *_ = fused(tags[:2], coarse[:2], levels=[0.0, 0.0])
    assert found.active.any(1).tolist()[:2] == [True, False], "nothing follows"


def test_who_is_far_off_is_not_taken_for_the_speaker():
    """15 of 144 cells are close enough, 12 are not; who sings may be anywhere."""
    close, far = {"person": (slice(0, 3), slice(0, 5))}, {"person": (slice(0, 3), slice(0, 4))}
    tags = scores({"Speech": 0.9}, {"Speech": 0.9}, {"Singing": 0.9})
    _, masks, sentences, sounds = fused(tags, segments(close, far, far))
    assert masks.any((1, 2)).tolist() == [True, False, True]
    assert [bool(text) for text in sentences] == [True, False, True]
    assert sounds[:2] == [[("Speech", True)], [("Speech", False)]]


def test_specks_beside_a_source_are_left_out():
    _, masks, sentences, _ = fused(
        scores({"Dog": 0.9}), segments({"dog": LEFT, "bird": RIGHT}) + segments({"dog": (slice(4, 6), slice(10, 12))})
    )
    assert masks[0, :, :22].any()
    assert not masks[0, :, 40:].any()
    assert "dog on the left is" in sentences[0]


def test_a_speck_is_not_seen():
    config = Config(image_size=65, seen_area=0.02, kept_area=0.01)
    speck, larger = {"dog": (slice(0, 2), slice(0, 1))}, {"dog": (slice(0, 3), slice(0, 1))}  # 2 and 3 of 144 cells
    _, masks, _, _ = fused(scores({"Dog": 0.9}), segments(speck), config=config)
    assert not masks.any()
    _, masks, _, _ = fused(scores({"Dog": 0.9}, {"Dog": 0.9}), segments(larger, speck), config=config)
    assert masks.any((1, 2)).tolist() == [True, True]


def test_its_parameters_are_the_published_ones_and_no_other():
    config = sizes.late_fusion()
    shapes = jax.eval_shape(lambda: models.init(models.build(config), config, jax.random.key(0)))
    assert set(shapes) == {"yamnet", "deeplab_v3"}
    count = {name: sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(part)) for name, part in shapes.items()}
    assert count == {"yamnet": 3_729_481, "deeplab_v3": 2_097_013}


def test_outputs_have_the_shapes_of_every_model_s():
    """Small pictures, whatever size the segmenter sees; nothing is computed."""
    config = sizes.late_fusion()
    config.data.image_size, config.late_fusion.image_size = 96, 129
    model, batch = models.build(config), models.example_batch(config, 2)
    params = jax.eval_shape(lambda: models.init(model, config, jax.random.key(0)))
    outputs = jax.eval_shape(lambda p: model.apply({"params": p}, batch), params)
    assert outputs.mask_logits.shape == (2, 10, 96, 96)
    assert outputs.audible_logits.shape == (2, 10, 521)
    assert outputs.semantic_logits.shape == (2, 10, 9, 9, 21)
    assert outputs.query_mask_logits.shape == (2, 10, len(class_map().sources), 9, 9)
    assert outputs.text_logits is None


@pytest.mark.parametrize("name", ["seen_area", "level_db", "max_sources"])
def test_nonsense_is_refused(name):
    config = sizes.late_fusion()
    setattr(config.late_fusion, name, 1e9 if name != "max_sources" else 0)
    with pytest.raises(Exception, match=f"late_fusion.{name} must be at"):
        config.validate()
