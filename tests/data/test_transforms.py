"""After every change, pictures, masks, sound, sentences and sources still tell the same story."""

import colorsys
import dataclasses

import numpy as np
import pytest
from small_clips import small_clip

from ssu_jax.config.data import AugmentConfig
from ssu_jax.data import records, synthetic, transforms
from ssu_jax.data.captions import mended_captions
from ssu_jax.data.synthetic import sentences
from ssu_jax.types import SoundObject


@pytest.fixture(scope="module")
def world():
    return [synthetic.make_clip(7, "train", index) for index in range(10)]


def story_of(clip, colours):
    """The world's sentences said anew from the objects alone."""
    told = []
    for t in range(len(clip.captions)):
        mentions = []
        for item in clip.objects:
            if item.on_screen and item.sounding[t]:
                x = np.nonzero(item.masks[t])[1].mean() + 0.5
                mentions.append(sentences.Mention(item.name, colours[item.name], sentences.place_of(x / 96)))
        told.append(sentences.describe(mentions))
    return tuple(told)


def colours_of(clip):
    """Colours by looking: the sentences of one and two sources name them; three or more need none."""
    colours = dict.fromkeys((item.name for item in clip.objects), "?")
    for caption in clip.captions:
        for clause in caption.rstrip(".").split(" and "):
            words = clause.split()
            if words and words[0].lower() == "the":
                colours[words[2]] = words[1]
    return colours


def test_the_judge_knows_the_unchanged_world(world):
    assert any(caption for clip in world for caption in clip.captions)
    for clip in world:
        assert story_of(clip, colours_of(clip)) == clip.captions


@pytest.mark.parametrize("seed", range(4))
def test_world_clips_stay_true(seed, world):
    options = AugmentConfig(crop_min_scale=0.7)
    for number, clip in enumerate(world):
        changed = transforms.augment(clip, options, np.random.default_rng([seed, number]))
        assert story_of(changed, colours_of(clip)) == changed.captions
        assert changed.frames.shape == clip.frames.shape
        assert changed.frames.dtype == np.uint8
        assert changed.sound.shape == clip.sound.shape
        assert changed.sound.dtype == np.int16
        for old, new in zip(clip.objects, changed.objects, strict=True):
            assert new.name == old.name
            np.testing.assert_array_equal(new.sounding, old.sounding)
            assert new.masks is None or (new.masks.shape == old.masks.shape and new.masks.dtype == bool)


def test_masks_follow_the_pictures(world):
    """A picture that shows the mask itself: after mirror and crop it still does, but for resampled rims."""
    for number, clip in enumerate(world):
        on_screen = tuple(item for item in clip.objects if item.on_screen)
        union = np.any([item.masks for item in on_screen] or [np.zeros((10, 96, 96), bool)], axis=0)
        painted = dataclasses.replace(clip, frames=np.repeat(union[..., None], 3, -1).astype(np.uint8) * 255)
        options = AugmentConfig(crop_min_scale=0.6, brightness=0.0, contrast=0.0)
        changed = transforms.augment(painted, options, np.random.default_rng(number))
        masks = [item.masks for item in changed.objects if item.on_screen]
        if masks:
            seen = changed.frames[..., 0] > 127
            union = np.any(masks, axis=0)
            assert (seen & union).sum() / (seen | union).sum() > 0.9


def test_same_draws_give_the_same_clip_and_other_draws_another(world):
    one, same, other = (
        transforms.augment(world[1], AugmentConfig(), np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one.frames, same.frames)
    np.testing.assert_array_equal(one.sound, same.sound)
    assert (one.frames != other.frames).any()
    assert (one.sound != other.sound).any()


def test_all_options_off_change_nothing(world):
    options = AugmentConfig(0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    same = transforms.augment(world[2], options, np.random.default_rng(0))
    np.testing.assert_array_equal(same.frames, world[2].frames)
    np.testing.assert_array_equal(same.sound, world[2].sound)
    assert same.captions == world[2].captions


def test_mirror_twice_is_nothing_and_once_swaps_the_words():
    clip = dataclasses.replace(small_clip(), captions=("Left, right and the leftmost.", "A bell.", ""))
    once = transforms.mirror(clip)
    assert once.captions == ("Right, left and the leftmost.", "A bell.", "")
    np.testing.assert_array_equal(once.frames[:, :, 0], clip.frames[:, :, -1])
    np.testing.assert_array_equal(once.objects[0].masks[:, :, 0], clip.objects[0].masks[:, :, -1])
    twice = transforms.mirror(once)
    assert twice.captions == clip.captions
    np.testing.assert_array_equal(twice.sounding_masks, clip.sounding_masks)


def scene(columns, sounding, captions, names=("bell", "drum"), category="bell", colours=("red", "blue")):
    """Squares of 20 pixels with their left rim at the given columns, over two frames of 96 x 96."""
    objects = []
    for name, column, flags in zip(names, columns, sounding, strict=True):
        masks = np.zeros((2, 96, 96), bool)
        masks[:, 40:60, column : column + 20] = True
        objects.append(SoundObject(name, np.array(flags, bool), True, masks))
    base = small_clip(0, t=2, size=96, sample_rate=100)
    return dataclasses.replace(base, objects=tuple(objects), captions=captions, category=category)


BELL_AND_DRUM = "The red bell on the left is ringing and the blue drum in the middle is beating."


def test_an_object_cropped_away_leaves_everything():
    clip = scene((0, 40), ((1, 1), (1, 0)), (BELL_AND_DRUM, "The red bell on the left is ringing."))
    # The right three quarters: the bell at columns 0 to 19 is outside, the drum's middle 50 becomes (50 - 24) / 72.
    cropped = transforms.crop(clip, 0.75, 0.1, 0.25)
    assert cropped is None  # 0.361 lies between left and middle
    cropped = transforms.crop(clip, 0.79, 0.1, 0.21)
    bell, drum = cropped.objects
    assert not bell.on_screen
    assert bell.masks is None
    assert bell.sounding.all()  # it is still heard
    assert drum.on_screen
    assert cropped.captions == ("The blue drum in the middle is beating.", "")
    assert cropped.category == ""
    assert not cropped.sounding_masks[1].any()


def test_boxes_follow_and_what_is_not_annotated_in_every_second_is_not_cropped():
    clip = small_clip(0, size=32)
    boxes = np.array([[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.2, 0.2], [np.nan] * 4], np.float32)
    boxed = dataclasses.replace(clip.objects[0], masks=None, boxes=boxes)
    clip = dataclasses.replace(clip, objects=(boxed,), captions=("",) * 3)
    mirrored = transforms.mirror(clip).objects[0].boxes
    np.testing.assert_allclose(mirrored, [[0.25, 0.5, 0.75, 1.0], [0.8, 0.0, 1.0, 0.2], [np.nan] * 4])
    cropped = transforms.crop(clip, 0.5, 0.5, 0.25).objects[0].boxes
    np.testing.assert_allclose(cropped, [[0.0, 0.0, 1.0, 1.0], [np.nan] * 4, [np.nan] * 4])
    first = np.arange(3) == 0
    partly = dataclasses.replace(clip, masks_known=first)
    assert transforms.crop(partly, 0.5, 0.5, 0.25) is None
    padded = dataclasses.replace(partly, valid=first)  # the others are no seconds of the clip at all
    assert transforms.crop(padded, 0.5, 0.5, 0.25) is not None
    unlabelled = dataclasses.replace(partly, masks_known=np.zeros(3, bool))
    assert transforms.crop(unlabelled, 0.5, 0.5, 0.25) is not None


def test_a_crop_rewrites_the_place():
    clip = scene((18, 60), ((0, 1), (0, 0)), ("", "The red bell on the left is ringing."))
    # The bell's middle column 28 of 96 is left; in the left 70 % it is 28 / 67.2 = 0.42: middle.
    cropped = transforms.crop(clip, 0.7, 0.2, 0.0)
    assert cropped.captions == ("", "The red bell in the middle is ringing.")
    # A sound object that is partly cut off, and a silent one.
    assert transforms.crop(clip, 0.6, 0.2, 0.3) is None
    silent = scene((18, 60), ((0, 0), (0, 0)), ("", ""))
    assert transforms.crop(silent, 0.6, 0.2, 0.3).objects[0].masks.any()


def test_an_unknown_colour_or_grammar_stops_the_crop():
    three = ("bell", "drum", "siren")
    flags = ((1, 1), (1, 1), (1, 1))
    clip = scene((0, 38, 70), flags, ("A bell, a drum and a siren are sounding.",) * 2, names=three)
    assert transforms.crop(clip, 0.95, 0.0, 0.0).captions == clip.captions
    assert transforms.crop(clip, 0.79, 0.1, 0.21) is None  # two would be left, whose colours no sentence names
    free = scene((0, 40), ((1, 1), (0, 0)), ("Somebody rings a bell at the left rim.",) * 2)
    assert transforms.crop(free, 0.95, 0.0, 0.0).captions == free.captions
    assert transforms.crop(free, 0.79, 0.1, 0.21) is None
    moved = scene((18, 60), ((0, 1), (0, 0)), ("", "A bell rings on the left."))
    assert transforms.crop(moved, 0.7, 0.2, 0.0) is None


def test_captions_are_kept_when_the_objects_are(world):
    for clip in world:
        assert mended_captions(clip, clip.objects) == clip.captions


def test_light_leaves_the_hue():
    rng = np.random.default_rng(0)
    frames = rng.integers(60, 190, (1, 20, 20, 3)).astype(np.uint8)
    clip = dataclasses.replace(small_clip(), frames=frames)
    for brightness, contrast in ((0.1, 1.1), (-0.1, 0.9), (0.0, 1.2), (0.1, 1.0)):
        changed = transforms.adjust_light(clip, brightness, contrast).frames
        assert (changed != frames).any()
        for before, after in zip(frames.reshape(-1, 3) / 255, changed.reshape(-1, 3) / 255, strict=True):
            if np.ptp(before) > 0.2:
                difference = abs(colorsys.rgb_to_hsv(*before)[0] - colorsys.rgb_to_hsv(*after)[0])
                assert min(difference, 1 - difference) < 0.012


def test_light_by_hand():
    clip = dataclasses.replace(small_clip(), frames=np.full((1, 4, 4, 3), [0, 100, 250], np.uint8))
    changed = transforms.adjust_light(clip, 0.1, 1.2).frames[0, 0, 0]
    # (0 - 127.5) * 1.2 + 127.5 + 25.5 = 0; (100 - 127.5) * 1.2 + 153 = 120; the last is above 255.
    assert changed.tolist() == [0, 120, 255]


def test_sound_by_hand():
    clip = dataclasses.replace(small_clip(), sound=np.array([100, -200, 300, 30000], np.int16))
    assert transforms.adjust_sound(clip, 0.0, 1).sound.tolist() == [0, 100, -200, 300]
    assert transforms.adjust_sound(clip, 0.0, -2).sound.tolist() == [300, 30000, 0, 0]
    assert transforms.adjust_sound(clip, 20 * np.log10(2), 0).sound.tolist() == [200, -400, 600, 32767]
    assert transforms.adjust_sound(clip, 0.0, 0).sound.tolist() == clip.sound.tolist()


def test_limits_of_the_options_are_kept():
    loud = dataclasses.replace(small_clip(), sound=np.full(48000, 1000, np.int16))
    for seed in range(50):
        sound = transforms.augment(loud, AugmentConfig(), np.random.default_rng(seed)).sound
        level = 20 * np.log10(np.abs(sound).max() / 1000)
        assert abs(level) <= 6.01
        assert (sound == 0).sum() <= 1600


def test_resize():
    masks = np.zeros((1, 4, 4), bool)
    masks[0, :2, 2:] = True
    large = transforms.resize_masks(masks, 8, 8)
    assert large.sum() == 16
    assert large[0, :4, 4:].all()
    np.testing.assert_array_equal(transforms.resize_masks(large, 4, 4), masks)
    frames = np.repeat(large[..., None], 3, -1).astype(np.uint8) * 200
    small = transforms.resize_frames(frames, 4, 4)
    assert small[0, 0, 3].tolist() == [200] * 3
    assert small[0, 3, 0].tolist() == [0] * 3


@pytest.mark.parametrize(("start", "seconds"), [(0, 7), (2, 3), (4, 9)])
def test_a_stretch_of_a_record_is_the_stretch_of_its_clip(start, seconds):
    record = records.encode_clip(small_clip(1, t=7))
    counts = []
    found = records.decode_clip(record, lambda t: counts.append(t) or (start, seconds))
    wanted = transforms.stretch(records.decode_clip(record), start, seconds)
    assert counts == [7]
    assert len(found.frames) == min(seconds, 7 - start)
    for name in ("frames", "frame_times", "sound", "valid", "masks_known"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.captions == wanted.captions
    for one, other in zip(found.objects, wanted.objects, strict=True):
        np.testing.assert_array_equal(one.sounding, other.sounding)
        np.testing.assert_array_equal(one.masks, other.masks)


def test_light_is_the_same_table_for_every_value_and_layout():
    clip = dataclasses.replace(small_clip(0), frames=np.arange(3 * 16 * 16 * 3, dtype=np.uint8).reshape(3, 16, 16, 3))
    table = np.clip(np.rint((np.arange(256) - 127.5) * 1.1 + 127.5 - 255 * 0.07), 0, 255).astype(np.uint8)
    for frames in (clip.frames, clip.frames[:, :, ::-1]):
        lit = transforms.adjust_light(dataclasses.replace(clip, frames=frames), -0.07, 1.1)
        np.testing.assert_array_equal(lit.frames, table[frames])
