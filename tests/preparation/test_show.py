"""`ssu data show`: the right clip, as a picture and a video, all files or none."""

import dataclasses

import av
import numpy as np
import pytest
import small_clips
from PIL import Image

from ssu_jax.data import records, shards
from ssu_jax.preparation import reading, show
from ssu_jax.types import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Five clips; the third has a rate that no AAC knows."""
    clips = [small_clips.small_clip(number, sample_rate=1000 if number == 2 else 16000) for number in range(5)]
    place = tmp_path_factory.mktemp("records")
    records.write_split(place, "train", clips, 2, classes=small_clips.CLASSES, source={})
    return records.RecordSource(place, "train")


def test_numbers_and_ids_lead_to_records(source):
    assert reading.numbers_of(source, [4, 0], []) == [4, 0]
    assert reading.numbers_of(source, [3], ["clip-0004", "clip-0001"]) == [3, 4, 1]
    assert reading.numbers_of(source, [1], ["clip-0001"]) == [1]  # one clip, one file


def test_numbers_and_ids_that_are_not_there(source):
    for wrong in (5, -1):
        with pytest.raises(UserError, match=f"holds 5 clips, numbers 0 to 4: there is no --index {wrong}"):
            reading.numbers_of(source, [0, wrong], [])
    with pytest.raises(UserError, match="none of the 5 clips .* has the --id 'clip-7'; the first one is 'clip-0000'"):
        reading.numbers_of(source, [], ["clip-0001", "clip-7"])


def test_a_picture_and_a_video_a_clip(source, tmp_path):
    written = show.show(source, [1, 2], tmp_path / "look")
    assert [path.name for path in written] == [f"train-00000{n}.{kind}" for n in (1, 2) for kind in ("png", "mp4")]
    assert sorted((tmp_path / "look").iterdir()) == sorted(written)
    pages = [np.array(Image.open(path)) for path in written[::2]]
    assert pages[0].shape == pages[1].shape
    assert (pages[0] != pages[1]).any()
    for path, rate in zip(written[1::2], (16000, show._HEARD_RATE), strict=True):
        with av.open(str(path)) as video:
            assert video.duration / 1e6 == pytest.approx(3, abs=0.1)
            assert video.streams.audio[0].codec_context.sample_rate == rate
            sound = np.concatenate([frame.to_ndarray()[0] for frame in video.decode(audio=0)])
            assert np.abs(sound).max() > 0.01


def test_all_files_or_none(source, tmp_path, monkeypatch):
    def full_disk(path, clips):
        if next(iter(clips)).id == "clip-0001":
            raise OSError(28, "No space left on device")
        path.write_bytes(b"a video")

    monkeypatch.setattr(show.writer, "write_preview", full_disk)
    with pytest.raises(UserError, match="the disk is full"):
        show.show(source, [0, 1], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_named_before_anything_is_written(tmp_path):
    good = records.encode_clip(small_clips.tiny_clip())
    facts = {"schema_version": 1, "classes": list(small_clips.CLASSES), "source": {}}
    shards.write_shards(tmp_path / "d", "train", [good, good[:-9]], 1, facts=facts)
    with pytest.raises(UserError, match="record 1 cannot be used"):
        show.show(records.RecordSource(tmp_path / "d", "train"), [0, 1], tmp_path / "look")
    assert not (tmp_path / "look").exists()


def test_a_clip_longer_than_its_sound(source, tmp_path):
    clip = dataclasses.replace(small_clips.small_clip(0), sound=np.zeros(100, np.int16))
    records.write_split(tmp_path / "d", "train", [clip], 1, classes=small_clips.CLASSES, source={})
    written = show.show(records.RecordSource(tmp_path / "d", "train"), [0], tmp_path / "look")
    assert all(path.stat().st_size > 1000 for path in written)
