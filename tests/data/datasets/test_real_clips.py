"""Layouts over real clips and annotations, which stay outside the repository."""

import itertools
import json
import shutil

import av
import numpy as np

from ssu_jax.config import Config
from ssu_jax.data import mixtures, records, transforms, video
from ssu_jax.data.datasets import LAYOUTS, Item, Reading, example_files
from ssu_jax.data.datasets.clip_videos import Piece
from ssu_jax.data.survey import survey


def test_vgg_ss_reads_the_published_list_and_puts_its_boxes_on_the_frame_they_were_drawn_in(shared):
    layout = LAYOUTS["vgg_ss"](shared / "data", Reading(frame_size=10_000))
    assert len(layout.classes) == 221
    items = layout.items()
    assert len(items) == 5155
    here = [item for item in items if item.files[0].exists()]
    truth = json.loads((shared / "data/annotations/vggss_boxes_of_our_clips.json").read_text())["clips"]
    assert {item.id for item in here} == {entry["file"] for entry in truth.values()}
    assert [fault for item in here for fault in layout.faults(item)] == []
    absent = next(item for item in items if not item.files[0].exists())
    assert layout.faults(absent) == [f"{absent.files[0]}: no such file: check the name"]
    for entry in truth.values():
        if entry["class"] == "waterfall burbling":  # takes longest to decode
            continue
        clip = layout.load(next(item for item in here if item.id == entry["file"]))
        assert clip.category == entry["class"]
        boxes = [one.boxes[5].tolist() for one in clip.objects]
        np.testing.assert_allclose(boxes, entry["bbox"], atol=1e-6)
        path = next(item.files[0] for item in here if item.id == clip.id)
        with av.open(str(path)) as container:
            shown = None
            for frame in itertools.takewhile(lambda frame: frame.time <= 5.0 + 1e-6, container.decode(video=0)):
                shown = frame
            np.testing.assert_array_equal(clip.frames[5], shown.to_ndarray(format="rgb24"))


def test_vgg_ss_clips_at_44100_hz_are_shown_as_they_are_and_mixed(shared, tmp_path):
    layout = LAYOUTS["vgg_ss"](shared / "data", Reading(224, 44100))
    labels = ("baby laughter", "playing harp")
    items = [item for item in layout.items() if item.files[0].exists() and item.facts.names[0] in labels]
    clips = [layout.load(item) for item in items]
    records.write_split(tmp_path, "test", clips, 1, classes=labels, source={})
    config = Config(family="tvsl")
    config.data.dir, config.data.classes, config.data.image_size = str(tmp_path), labels, 224
    config.data.sample_rate, config.tvsl.trio, config.tvsl.sound_seconds = 44100, "audioclip", 5
    (alone,) = mixtures.eval_mixtures(config, "test", 2, num_sources=1, as_it_is=True)
    middle = slice(round(2.5 * 44100), round(7.5 * 44100))  # the pictures are from 5.0 s
    for row, clip in enumerate(clips):
        assert labels[alone.sources[row, 0]] == clip.category
        np.testing.assert_allclose(alone.sound[row], clip.sound[middle] / 32768, atol=1e-7)
        left, top, right, bottom = np.rint(clip.objects[0].boxes[5] * 224).astype(int)
        assert alone.regions[row, 0].sum() == (right - left) * (bottom - top)
        assert alone.regions[row, 0, top:bottom, left:right].all()
    config.tvsl.mode = "released"  # VGG-SS has corners in both
    (mixed,) = mixtures.eval_mixtures(config, "test", 1, 1)
    first, second = mixed.record[0]
    np.testing.assert_array_equal(mixed.pictures[0], np.concatenate(alone.pictures[[first, second]], axis=1))
    np.testing.assert_array_equal(mixed.regions[0, 1, :, 224:], alone.regions[second, 0])
    np.testing.assert_allclose(mixed.sound[0], alone.sound.sum(0), atol=1e-6)


def test_vgg_ss_leaves_the_published_lists_boxes_without_area_out(shared):
    published = json.loads((shared / "data/annotations/vggss.json").read_text())
    numbers = {entry["file"]: len(entry["bbox"]) for entry in published}
    kept = {item.id: len(item.facts.boxes) for item in LAYOUTS["vgg_ss"](shared / "data").items()}
    fewer = {name: (numbers[name], kept[name]) for name in numbers if kept[name] != numbers[name]}
    assert len(fewer) == 18
    assert all(before - after == 1 for before, after in fewer.values())
    assert {name for name, (_, after) in fewer.items() if not after} == {"M1P1xla8rg0_000000", "MKC9LvRivTM_000030"}


def test_a_described_folder_of_a_real_clip_with_hand_drawn_masks(shared, tmp_path):
    """A yellow canary before a dark cage: in every second its mask lies on what is yellow."""
    name, masks = "vggsound_0nib7bMm8BA_15", tmp_path / "masks" / "canary"
    masks.mkdir(parents=True)
    shutil.copy(shared / f"data/clips/vggsound/{name}.mp4", tmp_path / "canary.mp4")
    for second in range(10):
        shutil.copy(shared / f"data/annotations/hand_masks/{name}/t{second:02d}.5.png", masks / f"{second}.png")
    columns = ("id", "video", "split", "class")
    row = ("canary", "canary.mp4", "test", "bird chirping, tweeting")  # VGGSound's name
    example_files.write_table(tmp_path / "clips.csv", columns, [row])
    example_files.write_table(
        tmp_path / "sentences.csv", ("id", "second", "sentence"), [("canary", 3, "A bird sings.")]
    )
    layout = LAYOUTS["f_lifescene"](tmp_path, Reading(frame_size=180))
    (item,) = layout.items()
    assert layout.faults(item) == []
    clip = layout.load(item)
    assert (clip.category, clip.major) == ("bird chirping", "animal")
    assert clip.frames.shape == (10, 180, 240, 3)
    np.testing.assert_array_equal(clip.captions_known, np.arange(10) == 3)
    assert clip.masks_known.all()
    yellow = clip.frames[..., :2].min(-1).astype(int) - clip.frames[..., 2]
    for second in range(10):
        mask = clip.sounding_masks[second]
        assert yellow[second][mask].mean() > yellow[second][~mask].mean() + 40


def test_a_video_that_cannot_be_entered_in_the_middle_is_read_from_the_front(shared):
    path = shared / "data/clips/public-domain-and-edge-cases/cockatoo_yuv444_silent.mp4"
    clip = LAYOUTS["raw"](path.parent, Reading(frame_size=96)).load(
        Item("end", "train", (path,), Piece(start=10.0))
    )  # fmt: skip
    whole = list(video.second_pictures(survey(path), 96))
    assert len(clip.frames) == len(whole) - 10 == 4
    for narrow, squeezed in zip(clip.frames, whole[10:], strict=True):
        again = transforms.resize_frames(narrow[None], 96, 96)[0]
        assert np.abs(again.astype(int) - squeezed).mean() < 3
