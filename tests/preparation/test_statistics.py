"""`ssu data stats`: every figure of a few small clips, worked by hand."""

import dataclasses
import json

import numpy as np
import pytest
import small_clips
from PIL import Image

from ssu_jax.data import records, shards
from ssu_jax.preparation import statistics, statistics_table
from ssu_jax.types import UserError

BELL_AREA = 4 * 4 / 256  # of a small clip's 16 x 16 pixels


def figures_of(*clips):
    tally = statistics.Tally()
    for clip in clips:
        tally.add(clip)
    return tally.figures()


@pytest.fixture(scope="module")
def found():
    """Clip 0: 3 valid seconds; clip 1: 2 and padding; clip 2: 5, of another size, rate and kind."""
    other = small_clips.small_clip(2, t=5, size=32, sample_rate=8000)
    return figures_of(
        small_clips.small_clip(0), small_clips.small_clip(1), dataclasses.replace(other, dataset="", category="drum")
    )


def test_clips_and_seconds(found):
    assert (found["clips"], found["seconds"], found["valid_seconds"]) == (3, 11, 10)
    assert found["known_seconds"] == {"masks": 10, "sentences": 10, "sources": 10}
    assert found["datasets"] == {"hand-made": 2, "": 1}
    assert found["majors"] == {"music": 3}
    assert found["categories"] == {"bell": 2, "drum": 1}
    assert found["frame_sizes"] == {"16 x 16": 2, "32 x 32": 1}
    assert found["seconds_per_clip"] == {"3": 2, "5": 1}
    assert found["sample_rates"] == {"8000": 1, "16000": 2}


def test_classes_and_sources(found):
    # The bell sounds in the first second of each clip, the siren off screen in all others, the drum never.
    assert found["classes"] == {
        "bell": {"clips": 3, "seconds_off_screen": 0, "seconds_on_screen": 3, "seconds_silent": 7},
        "drum": {"clips": 3, "seconds_off_screen": 0, "seconds_on_screen": 0, "seconds_silent": 10},
        "siren": {"clips": 3, "seconds_off_screen": 7, "seconds_on_screen": 0, "seconds_silent": 0},
    }
    assert found["sources"] == {
        "seen": {"0": 7, "1": 3},
        "heard": {"1": 10},
        "silent_share": 0.0,
        "silent_picture_share": 0.7,
    }


def test_masks(found):
    masks = found["masks"]
    assert masks["empty_share"] == 0.7
    assert masks["frames_with_mask"] == 3
    assert masks["mean"] == pytest.approx(BELL_AREA)
    assert all(value == pytest.approx(BELL_AREA, abs=1e-4) for value in masks["quantiles"].values())
    assert [number for number, count in enumerate(masks["histogram"]["frames"]) if count] == [6]  # 6 % to 7 %
    assert sum(masks["histogram"]["frames"]) == 3
    assert masks["histogram"]["edges"][6:8] == [0.06, 0.07]


def test_areas_of_every_size_have_their_place():
    clip = small_clips.small_clip(0, t=4)
    masks = np.zeros((4, 16, 16), bool)
    masks[1, :1, :1], masks[2, :8], masks[3] = True, True, True
    bell = dataclasses.replace(clip.objects[0], masks=masks, sounding=np.ones(4, bool))
    found = figures_of(dataclasses.replace(clip, objects=(bell,)))["masks"]
    assert found["empty_share"] == 0.25
    assert found["mean"] == pytest.approx((1 / 256 + 0.5 + 1) / 3)
    assert list(found["quantiles"].values()) == [0.0039, 0.0039, 0.5, 1.0, 1.0]
    frames = found["histogram"]["frames"]
    assert (frames[0], frames[50], frames[99], sum(frames)) == (1, 1, 1, 3)


def test_sentences(found):
    sentences = found["sentences"]
    assert (sentences["sentences"], sentences["empty_share"], sentences["vocabulary"]) == (3, 0.7, 7)
    assert sentences["words"]["histogram"] == {"8": 3}
    assert sentences["words"]["mean"] == 8
    # "The red bell on the left is ringing.", three times; equal counts by name.
    assert list(sentences["frequent_words"].items())[:3] == [("the", 6), ("bell", 3), ("is", 3)]


def test_what_is_not_known_is_not_counted():
    clip = small_clips.small_clip(0, t=4)
    second = np.arange(4)
    found = figures_of(
        dataclasses.replace(clip, masks_known=second < 2, captions_known=second > 0, sources_known=second == 3)
    )
    assert found["known_seconds"] == {"masks": 2, "sentences": 3, "sources": 1}
    assert found["sources"]["heard"] == {"1": 1}
    assert found["classes"]["bell"] == {"clips": 1, "seconds_off_screen": 0, "seconds_on_screen": 0,
                                        "seconds_silent": 1}  # fmt: skip
    assert found["masks"]["empty_share"] == 0.5
    assert (found["sentences"]["sentences"], found["sentences"]["empty_share"]) == (0, 1.0)
    assert "masks 50.0%, sentences 75.0%, sources 25.0%" in statistics_table.lines("x", found | {"bytes": 1})[1]


def test_an_object_that_sounds_without_a_mask_makes_the_mask_unknown():
    clip = small_clips.small_clip(0)  # the bell sounds in the first second of three
    objects = [dataclasses.replace(item, masks=None) for item in clip.objects]
    found = figures_of(dataclasses.replace(clip, objects=tuple(objects)))
    assert found["known_seconds"]["masks"] == 2
    assert found["masks"]["empty_share"] == 1.0
    assert found["masks"]["mean"] is None
    assert found["masks"]["quantiles"]["0.5"] is None


def test_two_objects_of_a_class_are_two_sources_and_one_class():
    clip = small_clips.small_clip(0)
    second_bell = dataclasses.replace(clip.objects[0], sounding=np.array([True, True, False]))
    found = figures_of(dataclasses.replace(clip, objects=(clip.objects[0], second_bell)))
    assert found["sources"]["seen"] == {"0": 1, "1": 1, "2": 1}
    assert found["sources"]["silent_share"] == pytest.approx(1 / 3)
    assert found["classes"]["bell"] == {"clips": 1, "seconds_off_screen": 0, "seconds_on_screen": 2,
                                        "seconds_silent": 1}  # fmt: skip


def test_no_annotation_at_all_is_said_and_drawn(tmp_path):
    clip = small_clips.small_clip(0)
    never = np.zeros(3, bool)
    clip = dataclasses.replace(clip, objects=(), masks_known=never, captions_known=never, sources_known=never)
    records.write_split(tmp_path, "raw", [clip], 1, classes=(), source={})
    lines = statistics.report(tmp_path, None, plots=tmp_path / "plots", json_path=tmp_path / "s.json")
    told = "\n".join(lines)
    assert "sources a second: not known" in told
    assert "no object is named" in told
    assert np.array(Image.open(tmp_path / "plots/raw.png")).std() > 5
    assert json.loads((tmp_path / "s.json").read_text())["splits"]["raw"]["masks"]["empty_share"] is None


def test_the_order_of_the_clips_is_of_no_account():
    clips = [small_clips.small_clip(number, t=2 + number) for number in range(4)]
    assert json.dumps(figures_of(*clips)) == json.dumps(figures_of(*clips[::-1]))


def test_a_directory_is_told_split_after_split_in_files_too(tmp_path):
    clips = [small_clips.small_clip(number) for number in range(5)]
    for split, some in (("train", clips[:3]), ("val", clips[3:])):
        records.write_split(tmp_path / "d", split, some, 2, classes=small_clips.CLASSES, source={})
    lines = statistics.report(tmp_path / "d", None, json_path=tmp_path / "s.json", plots=tmp_path / "plots")
    assert [line.split(",")[0] for line in lines if "clips," in line] == ["train: 3 clips", "val: 2 clips"]
    assert "  drum      " in "\n".join(lines)
    told = json.loads((tmp_path / "s.json").read_text())
    sizes = sum(path.stat().st_size for path in (tmp_path / "d").glob("train*.tfrecord"))
    assert told["splits"]["train"]["bytes"] == sizes
    assert told["splits"]["train"]["clips"] == 3
    drawn = [np.array(Image.open(tmp_path / "plots" / f"{split}.png")) for split in ("train", "val")]
    assert all(min(picture.shape[:2]) > 600 for picture in drawn)
    assert (drawn[0] != drawn[1]).any()
    assert (
        statistics.report(tmp_path / "d", "val")
        == lines[lines.index(next(line for line in lines if line.startswith("val:"))) :]
    )


def test_many_classes_are_cut_in_the_table_alone():
    clip = small_clips.small_clip(0)
    objects = tuple(dataclasses.replace(clip.objects[2], name=f"class {number}") for number in range(50))
    found = figures_of(dataclasses.replace(clip, objects=objects)) | {"bytes": 1}
    assert len(found["classes"]) == 50
    assert statistics_table.lines("x", found)[-1] == "  and 10 classes more (--json holds all)"


def test_a_record_that_cannot_be_decoded_is_named(tmp_path):
    facts = {"schema_version": 1, "classes": [], "source": {}}
    good = records.encode_clip(small_clips.tiny_clip())
    shards.write_shards(tmp_path, "train", [good, b"no clip"], 1, facts=facts)
    with pytest.raises(UserError, match="split train: record 1 cannot be used: not a tf.train.Example") as caught:
        statistics.report(tmp_path, None, json_path=str(tmp_path / "s.json"))
    assert caught.value.exit_code == 78
    assert not (tmp_path / "s.json").exists()
