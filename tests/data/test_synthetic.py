"""The built-in world keeps its promises: same bytes everywhere, exact masks, one reading of every scene."""

import dataclasses
import hashlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__ as DISPATCHED
from numpy._core._multiarray_umath import __cpu_features__ as FEATURES

from ssu_jax.config.labels import SYNTHETIC, SYNTHETIC_CLASSES
from ssu_jax.data import records
from ssu_jax.data.synthetic import SPLITS, looks, make_clip, make_counterfactual, plan, sentences, stage

NUM_CLIPS = {"train": 60, "test-shift": 40}

# Of clips 0 to 3 of two splits. If this changes although nothing was meant to, the world has been broken; if it
# was meant to, `synthetic.VERSION` goes up and every model trained on the world is out of date.
GOLDEN = "05992f91472f1afe1f4a0fd4225e3348c4d4c4c1fe521df2e03f6e274b4e3cb2"


def digest(clips) -> str:
    found = hashlib.sha256()
    for clip in clips:
        found.update(clip.frames.tobytes() + clip.sound.astype("<i2").tobytes() + repr(clip.captions).encode())
        for item in clip.objects:
            found.update(item.name.encode() + item.sounding.tobytes())
            found.update(item.masks.tobytes() if item.on_screen else b"")
    return found.hexdigest()


def golden_clips():
    return [make_clip(3, split, index) for split in ("train", "test-shift") for index in range(4)]


@pytest.fixture(scope="module")
def clips():
    return [make_clip(11, split, index) for split, number in NUM_CLIPS.items() for index in range(number)]


def test_the_world_is_the_one_that_models_were_trained_on():
    assert digest(golden_clips()) == GOLDEN


def test_same_bytes_without_the_processors_vector_units():
    disabled = " ".join(feature for feature in DISPATCHED if FEATURES.get(feature))
    if not disabled:
        pytest.skip("this NumPy uses no optional processor feature here")
    code = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_synthetic
print(test_synthetic.digest(test_synthetic.golden_clips()))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                             env={**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled})  # fmt: skip
    assert process.stdout.strip() == digest(golden_clips())


def test_a_clip_depends_on_seed_split_and_index_alone():
    alone = digest([make_clip(5, "val", 2)])
    others = [make_clip(5, split, index) for split, index in (("val", 1), ("val", 3), ("test", 2), ("train", 2))]
    assert digest([make_clip(5, "val", 2)]) == alone
    assert alone not in {digest([clip]) for clip in [*others, make_clip(6, "val", 2)]}


@pytest.mark.parametrize(("seed", "split", "index"), [(0, "holdout", 0), (-1, "train", 0), (0, "train", -1)])
def test_clips_that_are_not_there_are_refused(seed, split, index):
    with pytest.raises(ValueError, match="wanted a split of train, val, test, test-shift"):
        make_clip(seed, split, index)


def test_form(clips):
    for clip in clips:
        assert clip.frames.shape == (10, 96, 96, 3)
        assert clip.frames.dtype == np.uint8
        assert clip.sound.shape == (160000,)
        assert clip.sound.dtype == np.int16
        assert clip.sample_rate == 16000
        np.testing.assert_array_equal(clip.frame_times, np.arange(10) + 0.5)
        assert clip.valid.all()
        assert clip.dataset == "synthetic"
    assert len({clip.id for clip in clips}) == len(clips)


def test_every_object_is_large_enough_and_its_pixels_are_its_own(clips):
    for clip in clips:
        masks = np.array([item.masks for item in clip.objects if item.on_screen])
        assert masks.sum((2, 3)).min() >= 100, clip.id
        assert masks.sum(0).max() == 1, clip.id


def test_no_two_objects_of_one_class(clips):
    for clip in clips:
        names = [item.name for item in clip.objects]
        assert len(set(names)) == len(names)
        assert set(names) <= set(SYNTHETIC_CLASSES)
        assert names == sorted(names)


def test_every_object_stays_in_one_place_outside_the_dead_zones(clips):
    for clip in clips:
        for item in clip.objects:
            if item.on_screen:
                columns = item.masks.sum(1) @ (np.arange(96) + 0.5) / item.masks.sum((1, 2)) / 96
                sides = (columns < 0.30).all() + ((columns > 0.37) & (columns < 0.63)).all() + (columns > 0.70).all()
                assert sides == 1, (clip.id, item.name)


def test_sentences_say_what_the_labels_say(clips):
    for clip in clips:
        seen = [item for item in clip.objects if item.on_screen]
        for t, caption in enumerate(clip.captions):
            sounding = [item for item in seen if item.sounding[t]]
            words = sentences_words(caption)
            assert [word for word in words if word in SYNTHETIC_CLASSES] == [item.name for item in sounding]
            if len(sounding) == 1:
                assert sentences.PLACES[stage.places_of(sounding[0].masks)[t]] in caption
            assert bool(caption) == bool(sounding)
            assert clip.sounding_masks[t].any() == bool(sounding)


def test_words_are_few_and_sentences_short(clips):
    words = {word for clip in clips for caption in clip.captions for word in sentences_words(caption)}
    vocabulary = sentences.vocabulary(tuple(looks.COLOURS))
    assert words <= vocabulary
    assert len(vocabulary) < 100
    assert max(len(sentences_words(caption)) for clip in clips for caption in clip.captions) <= 26


def test_the_category_is_a_source_in_view(clips):
    for clip in clips:
        sources = {item.name for item in clip.objects if item.on_screen and item.sounding.any()}
        assert clip.category in (sources or {""})
        assert clip.major == (SYNTHETIC[clip.category] if clip.category else "")


def test_the_mixture_of_clips(clips):
    """Silent companions in at least half; every number of sources; off-screen sound; silence."""
    companions, sources, offscreen_only, silent = 0, set(), 0, 0
    for clip in clips:
        seen = [item for item in clip.objects if item.on_screen]
        heard = [item for item in clip.objects if item.sounding.any()]
        active = sum(item.sounding for item in seen)
        sources.add(int(active.max()))
        companions += bool(active.any()) and any(not item.sounding.any() for item in seen)
        offscreen_only += bool(heard) and not active.any()
        silent += not heard
        assert seen, f"{clip.id} shows nothing"
        assert len(seen) <= 5
    assert companions / len(clips) >= 0.5
    assert sources == {0, 1, 2, 3}
    assert 0.03 <= offscreen_only / len(clips) <= 0.2
    assert 0.03 <= silent / len(clips) <= 0.15


def test_a_third_of_the_clips_has_one_colour():
    casts = [plan.cast(plan.Streams(0, "train", index)) for index in range(300)]
    one = [len({thing.colour for thing in things}) == 1 for things in casts if len(things) > 1]
    assert 0.28 <= np.mean(one) <= 0.50  # chance adds to the third


def test_colours_are_read_from_the_pixels_alone(clips):
    """After JPEG, and with a tenth more or less of light, most of an object's clear pixels show the named colour."""
    total = 0
    for clip in clips[::2]:
        frames = records.decode_clip(records.encode_clip(clip)).frames.astype(float)
        masks = {item.name: item.masks for item in clip.objects}
        for t, caption in enumerate(clip.captions):
            for wanted, name in re.findall(r"[Tt]he (\w+) (\w+) (?:on|in) the", caption):
                pixels = frames[t][masks[name][t]]
                for changed in (pixels, pixels + 25, pixels - 25, pixels * 1.1 - 13, pixels * 0.9 + 13):
                    assert _colour_of(changed) == wanted, (clip.id, t, name)
                    total += 1
    assert total > 500


def test_masks_are_the_pixels_that_the_objects_change():
    """A mask holds the pixels that hide at least half of what is behind; beyond its rim nothing hides anything."""
    for index in range(12):
        streams = plan.Streams(2, SPLITS[index % 4], index)
        things, pictures = stage.set_stage(streams)
        seen = [thing for thing in things if thing.on_screen]
        on_black = stage.paint(seen, np.zeros((96, 96, 3)))
        on_white = stage.paint(seen, np.full((96, 96, 3), 255.0))
        np.testing.assert_array_equal(on_black.masks, pictures.masks)
        # What still shows of the background is 1 - coverage, whatever the colours.
        through = ((on_white.frames - on_black.frames) / 255.0).max(-1)
        union = pictures.masks.any(0)
        assert through[union].max() <= 0.5 + 1e-9
        assert through[~_grown(union)].min() == 1.0


def test_the_nearer_object_owns_the_pixel():
    far = placed_thing("drum", "red", 40.0)
    near = placed_thing("dog", "blue", 46.0)
    alone = stage.paint([near], np.full((96, 96, 3), 120.0))
    both = stage.paint([far, near], np.full((96, 96, 3), 120.0))
    np.testing.assert_array_equal(both.masks[1], alone.masks[0])
    assert (both.masks[0].sum((1, 2)) < both.num_whole[0]).all()
    assert not (both.masks[0] & both.masks[1]).any()
    assert (both.masks[1].sum((1, 2)) == both.num_whole[1]).all()


def test_every_class_has_its_own_silhouette():
    """Drawn at one place and one area, no two silhouettes overlap by more than nine tenths."""
    masks = [stage.paint([placed_thing(name, "red", 48.0)], np.zeros((96, 96, 3))).masks[0, 0] for name in looks.LOOKS]
    assert list(looks.LOOKS) == list(SYNTHETIC_CLASSES)
    for number, one in enumerate(masks):
        for other in masks[:number]:
            assert (one & other).sum() / (one | other).sum() < 0.9


def test_counterfactuals_move_the_sound_and_nothing_else():
    found = 0
    for index in range(30):
        pair = make_counterfactual(4, "test", index)
        if pair is None:
            clip = make_clip(4, "test", index)
            seen = [item for item in clip.objects if item.on_screen]
            assert len(seen) < 2 or not any(item.sounding.any() for item in seen)
            continue
        found += 1
        before, after = pair
        np.testing.assert_array_equal(before.frames, after.frames)
        np.testing.assert_array_equal(before.frames, make_clip(4, "test", index).frames)
        assert not np.array_equal(before.sound, after.sound)
        (old,) = [item for item in before.objects if item.sounding.any()]
        (new,) = [item for item in after.objects if item.sounding.any()]
        assert old.name != new.name
        np.testing.assert_array_equal(old.sounding, new.sounding)
        assert old.on_screen
        assert new.on_screen
        for clip, source in ((before, old), (after, new)):
            np.testing.assert_array_equal(clip.sounding_masks[source.sounding], source.masks[source.sounding])
            for t, caption in enumerate(clip.captions):
                assert (f" {source.name} " in caption) == source.sounding[t]
            assert clip.category == source.name
    assert found >= 10


def test_shifted_clips_hold_what_training_never_shows():
    def facts(split):
        things = [
            thing
            for index in range(80)
            for thing in plan.place(streams_cast(split, index), plan.Streams(0, split, index), 0)
        ]
        areas = [thing.half**2 * looks.box_area(thing.name) for thing in things if thing.on_screen]
        return np.array(areas), np.array([thing.timbre for thing in things])

    (areas, timbres), (shifted_areas, shifted_timbres) = facts("train"), facts("test-shift")
    assert areas.min() > 200
    assert areas.max() <= 600
    assert not ((shifted_areas > 225) & (shifted_areas < 625)).any()
    assert timbres.min() >= 0.2
    assert timbres.max() <= 0.8
    assert not ((shifted_timbres > 0.2) & (shifted_timbres < 0.8)).any()


def streams_cast(split, index):
    return plan.cast(plan.Streams(0, split, index))


def placed_thing(name: str, colour: str, x: float) -> plan.Thing:
    thing = plan.Thing(name, colour, True, np.zeros(4), 0.0, y=np.full(10, 48.3), x=np.full(10, x), tilt=np.zeros(10))
    return dataclasses.replace(thing, half=float(np.sqrt(400 / looks.box_area(name))))


def sentences_words(caption: str) -> list[str]:
    return caption.replace(",", " ,").replace(".", " .").split()


def _colour_of(pixels: np.ndarray) -> str:
    """The colour that most pixels are near to; pixels near to none are details and shades."""
    palette = np.array(list(looks.COLOURS.values()), float)
    distances = ((np.clip(pixels, 0, 255)[:, None] - palette) ** 2).sum(-1)
    votes = np.bincount(distances.argmin(1)[distances.min(1) < 60**2], minlength=len(palette))
    return list(looks.COLOURS)[votes.argmax()]


def _grown(mask):
    """The mask and its eight neighbours."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    return np.any([padded[:, y : y + 96, x : x + 96] for y in range(3) for x in range(3)], axis=0)
