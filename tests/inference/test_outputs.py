"""What `ssu predict` writes: each kind right and in step, in place whole or not at all."""

import errno
import json
import os
import pathlib
import re
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths
from small_videos import make_video, tone

from ssu_jax.data import survey
from ssu_jax.inference import describing, outputs, overlay_video
from ssu_jax.inference.described import Described, SecondPrediction
from ssu_jax.types import UserError
from ssu_jax.visualization.overlay import Layout


def mask_of(second, height, width):
    """A bar that walks to the right; nothing in second 1."""
    mask = np.zeros((height, width), bool)
    if second != 1:
        mask[4:20, 8 * second : 8 * second + 12] = True
    return mask


def described(path, stop_at=None):
    info = survey.survey(path)

    def predictions():
        for second in range(info.num_seconds):
            if second == stop_at:
                raise UserError("the video is damaged")
            mask = mask_of(second, info.height, info.width)
            caption = f"Bell {second} & <drum>." if mask.any() else ""
            yield SecondPrediction(second, info.time_of(second), caption, mask, float(mask.mean()), 0.75 * mask.any())

    return Described(info, predictions(), list(info.notes))


@pytest.fixture
def video(tmp_path):
    """2.4 s at 14.96 pictures a second, with a beep from 1.0 to 1.25 s."""
    sound = np.zeros(round(2.4 * 44100), np.int16)
    sound[44100:55125] = tone(0.25, 44100)
    return make_video(
        tmp_path / "clip.mkv", [i / 14.96 for i in range(36)], fps=14.96, sound=sound, rate=44100, layout="stereo"
    )


def test_prediction_json(video, tmp_path):
    outputs.write(described(video), tmp_path / "out", ["json"])
    assert sorted(os.listdir(tmp_path / "out")) == ["prediction.json"]
    found = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert list(found) == ["video", "width", "height", "duration_seconds", "frames", "notes"]
    assert (found["video"], found["width"], found["height"]) == (str(video), 64, 48)
    assert found["duration_seconds"] == pytest.approx(36 / 14.96, abs=2e-3)
    assert [frame["t"] for frame in found["frames"]] == [0.5, 1.5]
    for second, frame in enumerate(found["frames"]):
        assert list(frame) == ["t", "caption", "mask", "area", "score"]
        assert frame["mask"]["size"] == [48, 64]
        wanted = mask_of(second, 48, 64)
        encoded = run_lengths.encode(np.asfortranarray(wanted, np.uint8))
        assert frame["mask"]["counts"].encode("ascii") == encoded["counts"]
        assert frame["area"] == wanted.mean()
        assert frame["score"] == (0.75 if second == 0 else 0)
    assert found["notes"] == []


def test_captions_and_masks(video, tmp_path):
    outputs.write(described(video), tmp_path, ["vtt", "masks"])
    assert (tmp_path / "captions.vtt").read_text() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nBell 0 &amp; &lt;drum&gt;.\n"
    )
    assert sorted(os.listdir(tmp_path / "masks")) == ["00000.png", "00001.png"]
    for second in range(2):
        image = Image.open(tmp_path / "masks" / f"{second:05d}.png")
        assert image.mode == "L"
        np.testing.assert_array_equal(np.array(image), mask_of(second, 48, 64) * np.uint8(255))


def test_the_last_sentence_stands_to_the_end(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=3.4)
    outputs.write(described(path), tmp_path / "out", ["vtt"])
    cues = re.findall(r"(\S+) --> (\S+)", (tmp_path / "out" / "captions.vtt").read_text())
    assert cues == [("00:00:00.000", "00:00:01.000"), ("00:00:02.000", "00:00:03.400")]


def overlay_of(path, tmp_path):
    outputs.write(described(path), tmp_path / "out", ["overlay"])
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as container:
        duration = float(container.streams.video[0].duration * container.streams.video[0].time_base)
        pictures = [(frame.time, frame.to_ndarray(format="rgb24").astype(int)) for frame in container.decode(video=0)]
    return duration, pictures


def sound_of(path):
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None, 0, 0
        frames = list(container.decode(audio=0))
        sound = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
        return sound, frames[0].sample_rate, frames[0].time


def amber(image, left, width, layout):
    """How much of the mask's colour stands in some columns of the source picture."""
    scale = layout.picture_width / 64
    part = image[: layout.picture_height, round(left * scale) : round((left + width) * scale)]
    return ((part[..., 0] > 180) & (part[..., 2] < 110) & (part[..., 1] > 100) & (part[..., 1] < 215)).mean()


def test_the_overlay_shows_each_second_its_own_mask_and_sentence(video, tmp_path):
    layout = Layout.for_size(48, 64)
    duration, pictures = overlay_of(video, tmp_path)
    assert duration == pytest.approx(36 / 14.96, abs=2e-3)
    np.testing.assert_allclose([time for time, _ in pictures], [i / 14.96 for i in range(36)], atol=1e-3)
    for time, image in pictures:
        assert image.shape == (layout.height, layout.width, 3)
        written = image[-layout.strip_height :].max() > 150
        assert written == (time < 1.0)
        assert (amber(image, 0, 12, layout) > 0.02) == (time < 1.0)


def test_the_overlay_keeps_the_sound_in_step(video, tmp_path):
    overlay_of(video, tmp_path)
    sound, rate, start = sound_of(tmp_path / "out" / "overlay.mp4")
    assert (sound.shape[0], rate, start) == (2, 44100, 0.0)
    assert sound.shape[1] / rate == pytest.approx(2.4, abs=0.03)
    loud = np.flatnonzero(np.abs(sound[0]) > 0.08) / rate
    assert loud[0] == pytest.approx(1.0, abs=0.01)
    assert loud[-1] == pytest.approx(1.25, abs=0.01)
    original, _, _ = sound_of(video)
    length = min(sound.shape[1], original.shape[1])
    assert np.corrcoef(sound[0, :length], original[0, :length])[0, 1] > 0.98


def test_the_meter_follows_the_sound(video, tmp_path):
    layout = Layout.for_size(48, 64)
    _, pictures = overlay_of(video, tmp_path)
    for time, image in pictures:
        bar = image[layout.picture_height + 3, 5 : layout.width // 3].max(-1)
        if not 0.9 < time < 1.3:
            assert bar.mean() < 100
        elif 1.02 < time < 1.15:
            assert bar.mean() > 150


def test_slow_videos_change_mask_and_sentence_on_the_second(tmp_path):
    """A picture that stands for three seconds is drawn again for each of them."""
    duration, pictures = overlay_of(make_video(tmp_path / "a.mkv", [0, 3.0, 3.5], fps=2, seconds=4), tmp_path)
    times = np.array([time for time, _ in pictures])
    assert duration == pytest.approx(4.0, abs=0.02)
    assert {0.0, 1.0, 2.0, 3.0} <= set(times.round(3))
    assert np.diff(times).max() <= overlay_video.REPEAT_SECONDS + 1e-3
    for time, image in pictures:
        assert (image[-20:].max() > 150) == (int(time + 1e-3) != 1)


@pytest.mark.parametrize("layout", ["5.1", "7.1", "mono"])
def test_overlay_with_other_sounds(tmp_path, layout):
    path = make_video(
        tmp_path / "a.mkv", layout=layout, rate=37800, sound=tone(5, 37800), codecs=("libx264", "pcm_s16le")
    )
    duration, _ = overlay_of(path, tmp_path)
    sound, rate, _ = sound_of(tmp_path / "out" / "overlay.mp4")
    assert (sound.shape[0], rate) == ({"5.1": 6, "7.1": 2, "mono": 1}[layout], 48000)
    assert duration == pytest.approx(2.0, abs=0.01)
    assert sound.shape[1] / rate == pytest.approx(2.0, abs=0.03), "sound beyond the pictures is cut"


def test_overlay_of_a_turned_video_with_wide_pixels_and_no_sound(tmp_path):
    path = make_video(tmp_path / "a.mp4", rotation=90, aspect=2, sound=None)
    info = survey.survey(path)
    assert (info.height, info.width, info.pixel_aspect) == (64, 48, 0.5)
    _, pictures = overlay_of(path, tmp_path)
    layout = Layout.for_size(64, 24)
    assert pictures[0][1].shape == (layout.height, layout.width, 3)
    assert sound_of(tmp_path / "out" / "overlay.mp4")[0] is None


def contents(folder):
    return {one.relative_to(folder): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_results_are_replaced_file_by_file(video, tmp_path):
    out = tmp_path / "out"
    outputs.write(described(make_video(tmp_path / "long.mp4", seconds=4)), out)
    (out / "masks" / "mine.png").write_bytes(b"kept")
    (out / "notes.txt").write_text("kept")
    outputs.write(described(video), out)
    assert sorted(os.listdir(out)) == ["captions.vtt", "masks", "notes.txt", "overlay.mp4", "prediction.json"]
    assert sorted(os.listdir(out / "masks")) == ["00000.png", "00001.png", "mine.png"]
    assert json.loads((out / "prediction.json").read_text())["video"] == str(video)


def test_a_stop_half_way_leaves_what_was_there(video, tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(UserError, match="damaged"):
        outputs.write(described(video, stop_at=1), out)
    assert not (tmp_path / "deep").exists()
    outputs.write(described(video), out)
    before = contents(out)
    with pytest.raises(UserError, match="damaged"):
        outputs.write(described(video, stop_at=1), out)
    assert contents(out) == before
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_a_full_disk_and_a_place_that_cannot_be_written(video, tmp_path, monkeypatch):
    def full(self, path, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*file"):
        outputs.write(described(video), tmp_path / "file" / "out")
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"cannot write .*/out/.*: the disk is full"):
        outputs.write(described(video), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_is_removed(video, tmp_path):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    for owner in (ended.stdout.strip(), str(os.getpid())):
        (tmp_path / "out" / f".partial-{owner}-x").mkdir(parents=True)
    outputs.write(described(video), tmp_path / "out", ["vtt"])
    assert sorted(os.listdir(tmp_path / "out")) == [f".partial-{os.getpid()}-x", "captions.vtt"]


def test_two_videos_of_one_name_are_refused(tmp_path):
    assert outputs.folders_for(["x/a.mp4", "b.tar.mp4", "..mp4"], "out") == [
        pathlib.Path("out/a"),
        pathlib.Path("out/b.tar"),
        pathlib.Path("out/..mp4"),
    ]
    for other in ("y/a.mkv", "A.mp4"):
        with pytest.raises(UserError, match="rename one"):
            outputs.folders_for(["x/a.mp4", other], "out")
    with pytest.raises(UserError, match="its own overlay"):
        outputs.folders_for(["out/overlay/overlay.mp4"], "out")


def test_kinds_are_checked():
    assert describing._kinds("overlay, json,json") == ["overlay", "json"]
    for wrong in ("", ",", "jsn"):
        with pytest.raises(UserError, match="json, vtt, masks, heat, overlay"):
            describing._kinds(wrong)
