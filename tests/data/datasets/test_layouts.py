"""Each layout reads back from its files what the world put into them, and says what is known of it."""

import csv
import pickle

import numpy as np
import pytest
from PIL import Image

from ssu_jax.config.labels import F_LIFESCENE, F_MUSIC, SYNTHETIC_CLASSES
from ssu_jax.data import records
from ssu_jax.data.datasets import LAYOUTS, Reading, class_names, example_files, pictures

from .conftest import NUM_CLIPS

SPLITS = ["train", "val", "test"] * 2


def load_all(name, folder, **options):
    layout = LAYOUTS[name](folder, **options)
    return {item.id: layout.load(item) for item in layout.items()}


def assert_shows(clip, made, t=10):
    """The pictures and the sound of the world's clip, up to coding."""
    assert np.abs(clip.frames[:t].astype(int) - made.frames[:t]).mean() < 4
    assert len(clip.sound) == len(clip.frames) * 16000
    said, heard = made.sound[: t * 16000].astype(float), clip.sound[: t * 16000].astype(float)
    assert ((said - heard) ** 2).sum() <= 0.01 * (said**2).sum()


def assert_known(clip, masks, captions, sources):
    for flags, wanted in ((clip.masks_known, masks), (clip.captions_known, captions), (clip.sources_known, sources)):
        np.testing.assert_array_equal(flags, np.array(wanted, bool))


@pytest.mark.parametrize("name", LAYOUTS)
def test_any_layout_is_read_whole_checked_packed_and_sent_to_other_processes(name, example):
    layout = pickle.loads(pickle.dumps(LAYOUTS[name](example(name))))
    items = layout.items()
    assert [item.id for item in items] == sorted(item.id for item in items)
    assert len({item.id for item in items}) == len(items) == (NUM_CLIPS + (name == "music"))
    assert {item.split for item in items} <= {"train", "val", "test"}
    assert all(path.is_file() for item in items for path in item.files)
    assert [fault for item in items for fault in layout.faults(item)] == []
    item = pickle.loads(pickle.dumps(items[-1]))
    clip = layout.load(item)
    assert clip.id == item.id
    assert clip.dataset == name
    assert clip.category in (*layout.classes, "")
    assert {one.name for one in clip.objects} <= set(layout.classes)
    assert layout.seconds == len(clip.frames)
    again = records.decode_clip(records.encode_clip(clip))
    assert again.captions == clip.captions
    assert_known(again, clip.masks_known, clip.captions_known, clip.sources_known)
    np.testing.assert_array_equal(again.sounding_masks, clip.sounding_masks)
    for one, packed in zip(clip.objects, again.objects, strict=True):
        assert (one.name, one.on_screen) == (packed.name, packed.on_screen)
        np.testing.assert_array_equal(one.sounding, packed.sounding)
        np.testing.assert_array_equal(one.boxes, packed.boxes)


@pytest.mark.parametrize(("name", "tree"), [("f_music", F_MUSIC), ("f_lifescene", F_LIFESCENE)])
def test_described_folders_give_masks_sentences_and_sources_of_the_world(name, tree, example, world):
    layout = LAYOUTS[name](example(name))
    assert layout.classes == tuple(tree)
    assert [item.split for item in layout.items()] == SPLITS
    for number, (clip, made) in enumerate(zip(load_all(name, example(name)).values(), world, strict=False)):
        assert_shows(clip, made)
        np.testing.assert_array_equal(clip.sounding_masks, made.sounding_masks)
        told = [True] * 9 + [number % 3 != 2]  # the last sentence of each third clip is left out
        assert clip.captions == tuple(text if here else "" for text, here in zip(made.captions, told, strict=True))
        assert_known(clip, [True] * 10, told, [True] * 10)
        assert clip.major == tree[clip.category]
        if number == 1:  # one mask a second for all that sounds
            (one,) = clip.objects
            assert one.name == clip.category
            np.testing.assert_array_equal(one.sounding, made.sounding_masks.any((1, 2)))
            continue
        for one, source in zip(clip.objects, made.objects, strict=True):
            assert one.name == tuple(tree)[SYNTHETIC_CLASSES.index(source.name)]
            assert one.on_screen == source.on_screen
            np.testing.assert_array_equal(one.sounding, source.sounding)
            np.testing.assert_array_equal(one.masks, source.masks)


def test_the_class_trees_are_those_of_the_papers_page(shared):
    with open(shared / "data/annotations/f_music_f_lifescene_classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, title in (("f_music", "f-Music"), ("f_lifescene", "f-Lifescene")):
        theirs = {row["class"].lower(): row["group"].lower() for row in rows if row["dataset"] == title}
        assert LAYOUTS[name].tree == theirs


def test_names_of_the_source_sets_lead_to_every_class():
    labels = set(class_names.VGGSOUND.values())
    assert labels < set(F_LIFESCENE)
    assert all(class_names.f_lifescene_name(label) in F_LIFESCENE for label in class_names.VGGSOUND)
    assert class_names.f_lifescene_name("Cat Meowing") == "cat meowing"
    assert class_names.f_lifescene_name("playing harp") == "playing harp"
    assert [class_names.f_music_name(name) for name in ("acoustic_guitar", "electric_bass", "Erhu")] == [
        "guitar", "bass", "erhu",
    ]  # fmt: skip
    assert len(F_MUSIC) == 22
    assert len(class_names.AVSS) == 71
    assert len(class_names.AVSBENCH_S4) == 23


def test_s4_has_a_mask_in_the_first_training_frame_alone(example, world):
    clips = load_all("avsbench_s4", example("avsbench_s4"))
    for clip, made, split in zip(clips.values(), world, SPLITS, strict=False):
        known = [True] + [split != "train"] * 4
        np.testing.assert_array_equal(clip.frames, made.frames[:5])  # PNG
        np.testing.assert_array_equal(clip.sound, made.sound[: 5 * 16000])  # WAV
        np.testing.assert_allclose(clip.frame_times, np.arange(5) + 0.9375)
        assert_known(clip, known, [False] * 5, known)
        np.testing.assert_array_equal(clip.sounding_masks, made.sounding_masks[:5] & np.array(known)[:, None, None])
        (one,) = clip.objects
        assert one.name == clip.category
        assert one.name in class_names.AVSBENCH_S4
        np.testing.assert_array_equal(one.sounding, one.masks.any((1, 2)))


def test_ms3_has_all_masks_and_no_classes(example, world):
    for clip, made in zip(load_all("avsbench_ms3", example("avsbench_ms3")).values(), world, strict=False):
        assert_known(clip, [True] * 5, [False] * 5, [False] * 5)
        np.testing.assert_array_equal(clip.sounding_masks, made.sounding_masks[:5])
        assert clip.category == ""


def test_avss_pads_its_first_parts_and_tells_several_classes_of_a_frame_apart(example, world):
    layout = LAYOUTS["avss"](example("avss"))
    assert len(layout.classes) == 70
    parts = {}
    for item, made in zip(layout.items(), world, strict=False):
        clip, part = layout.load(item), item.files[0].parent.parent.parent.name
        parts[part, item.split] = clip
        count = 10 if part == "v2" else 5
        masked = 1 if (part, item.split) == ("v1s", "train") else count
        assert clip.frames.shape[0] == 10
        assert not clip.frames[count:].any()
        assert not clip.sound[count * 16000 :].any()
        np.testing.assert_array_equal(clip.valid, np.arange(10) < count)
        assert_known(clip, np.arange(10) < masked, [False] * 10, np.arange(10) < masked)
        assert_shows(clip, made, count)
        np.testing.assert_array_equal(clip.sounding_masks[:masked], made.sounding_masks[:masked])
        seen = {one.name: one for one in made.objects if one.on_screen and one.sounding[:masked].any()}
        by_name = {one.name: one for one in clip.objects}
        assert set(by_name) == {example_files.class_for(name, layout.classes) for name in seen}
        for name, source in seen.items():
            here = (source.masks & source.sounding[:, None, None])[:masked]
            np.testing.assert_array_equal(by_name[example_files.class_for(name, layout.classes)].masks[:masked], here)
    assert set(parts) == {
        ("v1s", "train"),
        ("v1m", "val"),
        ("v2", "test"),
        ("v1m", "train"),
        ("v2", "val"),
        ("v1s", "test"),
    }
    assert max(len(clip.objects) for clip in parts.values()) > 1


def test_avss_colours_are_pascal_vocs():
    from ssu_jax.data.datasets.avsbench import _palette

    wanted = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0),
              15: (192, 128, 128), 20: (0, 64, 128), 70: (32, 128, 128)}  # fmt: skip
    assert {number: tuple(_palette()[number].tolist()) for number in wanted} == wanted
    assert len(np.unique(_palette(), axis=0)) == 71


def test_music_keeps_a_video_in_one_split_and_puts_boxes_on_their_seconds(example, world):
    layout = LAYOUTS["music"](example("music"))
    items = {item.id: item for item in layout.items()}
    long = [item for name, item in items.items() if "example0000" in name]
    assert [item.id[-6:] for item in long] == ["000000", "000010"]
    assert long[0].split == long[1].split
    for item, made in zip(long, world, strict=False):
        clip = layout.load(item)
        assert_shows(clip, made)
        assert_known(clip, [False] * 10, [False] * 10, [False] * 10)
    # The first solo of one clip, and the first duet.
    tests = [item for item in items.values() if item.split == "test"]
    assert [item.id.split("/")[0] for item in tests] == ["duet", "solo"]
    for item, made in zip(tests, (world[3], world[2]), strict=True):
        seen = [one for one in reversed(made.objects) if one.masks is not None]
        sources = {example_files.class_for(one.name, class_names.MUSIC): one.masks for one in seen}
        objects = layout.load(item).objects
        assert len(objects) == 1 + item.id.startswith("duet/")
        for one in objects:
            for box, mask in zip(one.boxes, sources[one.name], strict=True):
                y, x = np.nonzero(mask)
                np.testing.assert_allclose(box, np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) / 96, atol=1e-6)
    duets = [item for name, item in items.items() if name.startswith("duet/")]
    assert duets
    assert all(len({one.name for one in layout.load(item).objects}) == 2 for item in duets)


def test_vggsound_finds_each_way_of_naming_a_clip(example, world):
    layout = LAYOUTS["vggsound"](example("vggsound"))
    items = layout.items()
    assert [item.files[0].stem for item in items[:3]] == [
        "example0000_000000",
        "example0001_10",
        "example0002_20000_30000",
    ]
    assert [item.id for item in items[:3]] == ["example0000_000000", "example0001_000010", "example0002_000020"]
    assert [item.split for item in items] == ["train", "test"] * 3
    for item, made in zip(items, world, strict=False):
        clip = layout.load(item)
        assert_shows(clip, made)
        assert [one.name for one in clip.objects] == [clip.category]
        assert_known(clip, [False] * 10, [False] * 10, [False] * 10)


def test_vgg_ss_boxes_lie_on_the_picture_at_five_seconds(example, world):
    for clip, made in zip(load_all("vgg_ss", example("vgg_ss")).values(), world, strict=False):
        assert clip.frame_times[5] == 5.0
        assert_shows(clip, made)
        masks = [one.masks for one in made.objects if one.masks is not None]
        for one, mask in zip(clip.objects, masks, strict=True):
            np.testing.assert_array_equal(np.isfinite(one.boxes).all(1), np.arange(10) == 5)
            left, top, right, bottom = np.rint(one.boxes[5] * 96).astype(int)
            inside = np.zeros((96, 96), bool)
            inside[top:bottom, left:right] = True
            assert not (mask[5] & ~inside).any()
            assert mask[5][top].any()
            assert mask[5][:, right - 1].any()


def test_music_avqa_takes_instruments_that_answers_vouch_for(example, world):
    layout = LAYOUTS["music_avqa"](example("music_avqa"))
    assert [item.split for item in layout.items()] == SPLITS
    for clip, made in zip(load_all("music_avqa", example("music_avqa")).values(), world, strict=False):
        names = {tuple(F_MUSIC)[SYNTHETIC_CLASSES.index(one.name)] for one in made.objects}
        assert {one.name for one in clip.objects} == names  # and no suona
        assert_known(clip, [False] * 10, [False] * 10, [False] * 10)


def test_raw_cuts_long_videos_and_knows_nothing_of_them(example, world):
    clips = load_all("raw", example("raw"))
    by_number = {"trips/long.mp4#000000": 0, "trips/long.mp4#000010": 1} | {
        f"short_{number:03d}.{('mkv', 'mp4')[number % 2]}#000000": number for number in range(2, NUM_CLIPS)
    }
    assert set(clips) == set(by_number)
    for name, number in by_number.items():
        assert_shows(clips[name], world[number])
        assert clips[name].objects == ()
        assert_known(clips[name], [False] * 10, [False] * 10, [False] * 10)


def test_raw_takes_a_list_and_splits_by_file(example, tmp_path):
    (example("raw") / "list.txt").write_text("# two of them\ntrips/long.mp4\nshort_003.mp4\n")
    layout = LAYOUTS["raw"](example("raw") / "list.txt", val_share=1.0)
    assert [(item.id, item.split) for item in layout.items()] == [
        ("short_003.mp4#000000", "val"), ("trips/long.mp4#000000", "val"), ("trips/long.mp4#000010", "val"),
    ]  # fmt: skip
    half = [item.split for item in LAYOUTS["raw"](example("raw"), val_share=0.5).items()]
    assert half == [item.split for item in LAYOUTS["raw"](example("raw"), val_share=0.5).items()]
    (example("raw") / "list.txt").unlink()


def test_larger_pictures_are_reduced_with_their_masks(example):
    small = load_all("f_music", example("f_music"), reading=Reading(frame_size=48))
    whole = load_all("f_music", example("f_music"))
    for name, clip in small.items():
        assert clip.frames.shape == (10, 48, 48, 3)
        np.testing.assert_array_equal(clip.sounding_masks, whole[name].sounding_masks[:, 1::2, 1::2])
    (still, *_) = load_all("avsbench_s4", example("avsbench_s4"), reading=Reading(32)).values()
    assert still.frames.shape == (5, 32, 32, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_mask_is_whatever_is_not_black(mode, tmp_path):
    mask = np.arange(12).reshape(3, 4) % 3 == 1
    if mode == "P":  # the number counts, not the colour that it stands for
        image = Image.frombytes("P", (4, 3), mask.astype(np.uint8).tobytes())
        image.putpalette([255, 255, 255, 0, 0, 0])
    else:
        image = Image.fromarray(mask.astype(np.uint8) * 255).convert(mode)
        if mode == "RGBA":
            image.putalpha(255)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(pictures.read_mask(tmp_path / "mask.png", (3, 4)), mask)
