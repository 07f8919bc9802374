"""Copies in another format hold the same records under the same numbers, and TensorFlow Datasets opens them."""

import subprocess
import sys

import numpy as np
import pytest
from small_clips import CLASSES, small_clip

from ssu_jax.cli import main
from ssu_jax.data import records, run_lengths, shards, tfds
from ssu_jax.preparation import converting
from ssu_jax.types import UserError

NUMBER = 5


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("records")
    for split, first in (("train", 0), ("val", 100)):
        clips = map(small_clip, range(first, first + NUMBER))
        records.write_split(path, split, clips, 2, classes=CLASSES, source={"made": "here"})
    return path


def content(directory, split="train") -> list[bytes]:
    source = records.RecordSource(directory, split, verify_shards=True)
    return [source[number] for number in range(len(source))]


@pytest.mark.parametrize("num_shards", [None, 3])
def test_there_and_back(directory, tmp_path, num_shards, capsys):
    there, back = str(tmp_path / "there"), str(tmp_path / "back")
    shards_wanted = [] if num_shards is None else ["--num-shards", str(num_shards)]
    assert main.main(["data", "convert", str(directory), "--to", "array_record", "--out", there, *shards_wanted]) == 0
    assert "'train', 5 clips in" in capsys.readouterr().err
    assert content(there) == content(directory)
    assert content(there, "val") == content(directory, "val")
    assert main.main(["data", "verify", there]) == 0
    converting.convert(there, back, "tfrecord", num_shards=2)
    wanted = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == wanted


def test_uneven_shards_keep_their_numbers(tmp_path):
    folder = shards.begin(tmp_path / "a", "train", False)
    growing = shards.growing_folder(folder, "train")
    parts = [[0], [1, 3, 5], [2, 4]]
    written = [
        shards.write_shard(
            growing, shards.shard_name("train", k, 3), (records.encode_clip(small_clip(i)) for i in part)
        )
        for k, part in enumerate(parts)
    ]
    shards.seal(folder, "train", written, records.facts_of(CLASSES, {}))
    growing.remove()
    ids = [records.decode_labels(record).id for record in content(tmp_path / "a")]
    assert ids == [f"clip-{number:04d}" for number in (0, 1, 2, 3, 4, 5)]
    converting.convert(tmp_path / "a", tmp_path / "b", "array_record")
    assert content(tmp_path / "b") == content(tmp_path / "a")
    assert not records.verify(tmp_path / "a")


def test_tensorflow_datasets_opens_the_copy_without_tensorflow(directory, tmp_path):
    converting.convert(directory, tmp_path, "array_record")
    script = f"""
import sys
import tensorflow_datasets as tfds
source = tfds.builder_from_directory({str(tmp_path)!r}).as_data_source()
assert sorted(source) == ["train", "val"] and len(source["train"]) == {NUMBER}
assert source["train"][0]["id"] == b"clip-0000"
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    source = tfds.builder(tmp_path).as_data_source(split="val")
    clips = {f"clip-{100 + number:04d}": small_clip(100 + number) for number in range(NUMBER)}
    for example in source:
        clip = clips.pop(example["id"].decode())
        assert example["category"] == b"bell"
        assert [caption.decode() for caption in example["frames/captions"]] == list(clip.captions)
        assert np.abs(np.stack(example["frames"]).astype(int) - clip.frames).mean() < 3
        np.testing.assert_array_equal(np.frombuffer(example["sound"], "<i2"), clip.sound)
        assert example["sound/rate"] == 16000
        np.testing.assert_array_equal(example["frames/size"], [16, 16])
        bell = run_lengths.decode(list(example["masks"])[:3], 16, 16)
        np.testing.assert_array_equal(bell, clip.objects[0].masks)
        assert example["boxes"].shape == (0,)
    assert not clips


def test_mistakes_are_said_and_leave_nothing(directory, tmp_path):
    with pytest.raises(UserError, match="the copy wants a folder of its own"):
        converting.convert(directory, directory, "array_record")
    with pytest.raises(UserError, match="no split 'test'"):
        converting.convert(directory, tmp_path / "a", "array_record", splits=["test"])
    with pytest.raises(UserError, match=r"--num-shards must be 1 to the number of clips \(5\), got 6"):
        converting.convert(directory, tmp_path / "a", "array_record", num_shards=6)
    converting.convert(directory, tmp_path / "b", "tfrecord", splits=["val"])
    with pytest.raises(UserError, match="already holds the split 'val'"):
        converting.convert(directory, tmp_path / "b", "array_record", splits=["val"])
    with pytest.raises(UserError, match="no split is in ArrayRecord files"):
        tfds.describe(tmp_path / "b")
    with pytest.raises(UserError, match="not described for TensorFlow Datasets"):
        tfds.builder(tmp_path / "b")
    shard = tmp_path / "b" / "val-00000-of-00002.tfrecord"
    damaged = bytearray(shard.read_bytes())
    damaged[50] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(UserError, match=r"val-00000-of-00002.tfrecord: record 0 \(row 0\)") as error:
        converting.convert(tmp_path / "b", tmp_path / "c", "array_record")
    assert error.value.exit_code == 78
    assert not (tmp_path / "c").exists()
