"""Records: nothing is lost on the way to disk and back, and no damage is read as data."""

import dataclasses
import errno
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from small_clips import CLASSES, small_clip, tiny_clip

from ssu_jax.cli import main as cli
from ssu_jax.data import example, records, shards, tfrecord, transforms
from ssu_jax.types import SoundObject, UserError


def write(directory, number=5, num_shards=2, split="train", clip=tiny_clip, **kwargs):
    return records.write_split(
        directory, split, (clip(i) for i in range(number)), num_shards, classes=CLASSES, source={"seed": 0}, **kwargs
    )


def assert_equal(one, other, frames=True):
    for field in dataclasses.fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "objects":
            assert len(mine) == len(theirs)
            for a, b in zip(mine, theirs, strict=True):
                assert (a.name, a.on_screen) == (b.name, b.on_screen)
                np.testing.assert_array_equal(a.sounding, b.sounding)
                assert (a.masks is None) == (b.masks is None)
                if a.masks is not None:
                    np.testing.assert_array_equal(a.masks, b.masks)
        elif field.name == "frames":
            assert mine.shape == theirs.shape
            if frames:
                np.testing.assert_array_equal(mine, theirs)
        elif isinstance(mine, np.ndarray):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
        else:
            assert mine == theirs


def test_clip_survives():
    clip = small_clip(1)
    back = records.decode_clip(records.encode_clip(clip))
    assert_equal(clip, back, frames=False)
    # JPEG of quality 95 without chroma subsampling: a smooth picture changes little, and a second time hardly at all.
    assert np.abs(back.frames.astype(int) - clip.frames)[:, 1:-1, 1:-1].mean() < 3
    assert records.encode_clip(clip) == records.encode_clip(small_clip(1))


@pytest.mark.parametrize(
    "change",
    [
        {"objects": ()},
        {"captions": ("ä, 名前", "", "")},
        {"sound": np.zeros(0, np.int16)},
        {"sound": np.array([-32768, 32767], np.int16)},
        {"frame_times": np.array([0.0, 0.033367, 3600.123456])},
        {"sample_rate": 44100, "dataset": "", "major": "", "category": ""},
    ],
)
def test_unusual_clips_survive(change):
    clip = dataclasses.replace(small_clip(), **change)
    assert_equal(clip, records.decode_clip(records.encode_clip(clip)), frames=False)


def test_masks_that_are_empty_full_or_unknown():
    clip = small_clip()
    bell = clip.objects[0]
    for masks in (np.zeros_like(bell.masks), np.ones_like(bell.masks), None):
        changed = dataclasses.replace(clip, objects=(dataclasses.replace(bell, masks=masks), *clip.objects[1:]))
        assert_equal(changed, records.decode_clip(records.encode_clip(changed)), frames=False)


def test_labels_without_pictures_and_sound():
    clip, record = small_clip(), records.encode_clip(small_clip())
    labels = records.decode_labels(record)
    assert labels.captions == clip.captions
    assert labels.frames.shape == (3, 16, 16, 0)
    assert all(item.masks is None for item in labels.objects)
    with_masks = records.decode_labels(record, with_masks=True)
    np.testing.assert_array_equal(with_masks.sounding_masks, clip.sounding_masks)


def test_one_second_with_the_sound_of_all():
    clip, record = small_clip(), records.encode_clip(small_clip())
    for second in range(3):
        alone = records.decode_second(record, second)
        wanted = transforms.stretch(records.decode_clip(record), second, 1)
        assert_equal(dataclasses.replace(alone, sound=wanted.sound), wanted)
        np.testing.assert_array_equal(alone.sound, clip.sound)


@pytest.mark.parametrize("change", [{"valid": np.ones(2, bool)}, {"captions": ("", "")}, {"frame_times": np.zeros(4)},
                                    {"frames": np.zeros((3, 16, 16, 3))}, {"sound": np.zeros(9)},
                                    {"objects": (SoundObject("bell", np.ones(3, bool), boxes=np.eye(3, 4)),)},
                                    {"objects": (SoundObject("bell", np.ones(3, bool), boxes=np.full((3, 4), 2.0)),)},
                                    ])  # fmt: skip
def test_clips_that_do_not_fit_together_are_refused(change):
    with pytest.raises(ValueError, match="clip-0000"):
        records.encode_clip(dataclasses.replace(small_clip(), **change))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frames/masks_known", [1]), ("objects/has_boxes", [1]), ("boxes", [0.5]),
        ("schema", [3]), ("schema", []), ("frames", [b"no picture"] * 2), ("frames/size", [1 << 20, 1 << 20]),
        ("frames/size", [9, 9]), ("frames/valid", [1]), ("objects/sounding", [1]), ("objects/has_masks", [1, 1, 1]),
        ("masks", [b"1"]), ("objects/on_screen", []), ("frames/captions", [b"\xff", b""]), ("id", []),
        ("id", [5]), ("sound", [b"a"]), ("sound/rate", [0]), ("masks", [b"\xff" * 9] * 4), ("masks", [b""] * 4),
    ],
)  # fmt: skip
def test_records_that_are_no_clip_are_refused(name, value):
    features = dict(example.unpack(records.encode_clip(tiny_clip())))
    record = example.pack({**{key: list(values) for key, values in features.items()}, name: value})
    with pytest.raises(ValueError) as caught:
        records.decode_clip(record)
    assert len(str(caught.value)) < 300


def test_records_of_the_first_schema_are_read_as_wholly_annotated():
    features = dict(example.unpack(records.encode_clip(tiny_clip())))
    for name in ("frames/masks_known", "frames/captions_known", "frames/sources_known", "objects/has_boxes", "boxes"):
        del features[name]
    old = records.decode_clip(example.pack({**{key: list(value) for key, value in features.items()}, "schema": [1]}))
    new = records.decode_clip(records.encode_clip(tiny_clip()))
    assert old.masks_known.all()
    assert old.captions_known.all()
    assert old.sources_known.all()
    np.testing.assert_array_equal(old.sounding_masks, new.sounding_masks)
    assert [item.boxes for item in old.objects] == [None] * 3


def test_boxes_and_what_is_known_survive_the_record():
    clip = tiny_clip()
    boxes = np.array([[0.25, 0.5, 0.75, 1.0], [np.nan] * 4], np.float32)
    boxed = dataclasses.replace(clip.objects[0], masks=None, boxes=boxes)
    flags = np.array([True, False])
    clip = dataclasses.replace(
        clip, objects=(*clip.objects[1:], boxed), masks_known=flags, captions_known=~flags, sources_known=flags
    )
    again = records.decode_labels(records.encode_clip(clip), with_masks=True)
    np.testing.assert_array_equal(again.objects[2].boxes, boxes)
    assert [item.boxes is None for item in again.objects] == [True, True, False]
    np.testing.assert_array_equal(again.objects[0].masks, clip.objects[0].masks)
    assert (again.masks_known.tolist(), again.captions_known.tolist()) == ([True, False], [False, True])


def test_files_are_the_same_bytes_and_hold_record_i_in_shard_i_mod_k(tmp_path):
    manifest = write(tmp_path / "a")
    assert manifest == write(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "train-00000-of-00002.index", "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.index", "train-00001-of-00002.tfrecord", "train.manifest.json",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    odd = [records.decode_labels(record).id for record in tfrecord.scan((tmp_path / "a" / names[3]).read_bytes())]
    assert odd == ["clip-0001", "clip-0003"]
    source = records.RecordSource(tmp_path / "a", "train", verify_shards=True)
    assert [records.decode_labels(source[i]).id for i in range(len(source))] == [f"clip-{i:04d}" for i in range(5)]
    assert source.digest == manifest["digest"]
    assert manifest["digest"] in repr(source)
    assert manifest["classes"] == list(CLASSES)
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            source[outside]


def test_splits_share_a_directory_and_more_shards_than_records_are_fine(tmp_path):
    write(tmp_path, 1, 4, "test")
    write(tmp_path, 2, 1, "test-shift")
    assert shards.splits_of(tmp_path) == ["test", "test-shift"]
    assert len(records.RecordSource(tmp_path, "test")) == 1
    assert len(records.RecordSource(tmp_path, "test-shift")) == 2
    assert records.verify(tmp_path) == []


def test_existing_split_is_kept_unless_overwritten(tmp_path):
    before = write(tmp_path, 5, 3)
    with pytest.raises(UserError, match="already holds"):
        write(tmp_path, 2, 2)
    assert records.RecordSource(tmp_path, "train").digest == before["digest"]
    write(tmp_path, 2, 2, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 5
    assert records.verify(tmp_path) == []


def test_interrupted_write_leaves_nothing_and_keeps_the_old(tmp_path):
    def clips():
        yield tiny_clip()
        raise KeyboardInterrupt

    for overwrite in (False, True):
        before = sorted(path.name for path in tmp_path.iterdir())
        with pytest.raises(KeyboardInterrupt):
            records.write_split(tmp_path, "train", clips(), 2, classes=CLASSES, source={}, overwrite=overwrite)
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        if not overwrite:
            write(tmp_path)
    assert records.verify(tmp_path) == []


def test_full_disk(tmp_path, monkeypatch):
    def write_full(self, record):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tfrecord.Writer, "write", write_full)
    with pytest.raises(UserError, match="the disk is full"):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_killed_writer_leaves_nothing_under_a_final_name(tmp_path):
    code = f"""
import os, signal, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from small_clips import tiny_clip
from ssu_jax.data import records
def clips():
    yield from map(tiny_clip, range(3))
    os.kill(os.getpid(), signal.SIGKILL)
records.write_split({str(tmp_path)!r}, "train", clips(), 2, classes=[], source={{}})
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -signal.SIGKILL
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    with pytest.raises(UserError, match="holds no records"):
        records.RecordSource(tmp_path, "train")
    write(tmp_path)
    assert records.verify(tmp_path) == []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("split", ["../x", "", "a/b", ".hidden", "a b", "x" * 99])
def test_names_of_splits_are_plain(tmp_path, split):
    with pytest.raises(UserError, match="a split's name"):
        write(tmp_path, split=split)


def test_every_flipped_byte_is_found_by_the_reader_with_file_and_record(tmp_path):
    write(tmp_path, 3, 1)
    path = tmp_path / "train-00000-of-00001.tfrecord"
    sound = path.read_bytes()
    offsets = tfrecord.unpacked_index(path.with_suffix(".index").read_bytes())["offset"].tolist()
    rng = np.random.default_rng(0)
    source = records.RecordSource(tmp_path, "train")
    expected = [source[i] for i in range(3)]
    with open(path, "r+b") as file:
        for byte in range(len(sound)):
            flipped = sound[byte] ^ 1 << int(rng.integers(8))
            os.pwrite(file.fileno(), bytes([flipped]), byte)
            number = sum(offset <= byte for offset in offsets) - 1
            with pytest.raises(UserError) as caught:
                source[number]
            message = str(caught.value)
            assert caught.value.exit_code == 78
            assert f"{path}: record {number} (row {number}) at byte {offsets[number]}: " in message
            assert len(message) - len(str(path)) < 300
            assert all(source[i] == expected[i] for i in range(3) if i != number)
            os.pwrite(file.fileno(), sound[byte : byte + 1], byte)
    assert records.verify(tmp_path) == []


def test_flipped_bytes_are_found_by_verify(tmp_path):
    write(tmp_path, 4, 2)
    rng = np.random.default_rng(1)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        for byte in rng.integers(len(content), size=25).tolist():
            path.write_bytes(content[:byte] + bytes([content[byte] ^ 1 << int(rng.integers(8))]) + content[byte + 1 :])
            faults = records.verify(tmp_path)
            assert faults, f"byte {byte} of {path.name}"
            assert any(path.name in fault for fault in faults)
            if path.suffix == ".tfrecord":
                assert any(re.search(rf"{path.name}: record \d \(row \d\) at byte", fault) for fault in faults)
            assert not any("\n" in fault for fault in faults)
        path.write_bytes(content)
    assert records.verify(tmp_path) == []


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def cut_at_record(path):
    last = tfrecord.unpacked_index(path.with_suffix(".index").read_bytes())["offset"][-1]
    path.write_bytes(path.read_bytes()[: int(last)])


def grow(path):
    path.write_bytes(path.read_bytes() + b"\0")


def double_record(path):
    content = path.read_bytes()
    path.write_bytes(content + content)


def empty(path):
    path.write_bytes(b"")


def swap_shards(path):
    other = path.with_name(path.name.replace("00000-of", "00001-of"))
    content = path.read_bytes()
    shutil.copyfile(other, path)
    other.write_bytes(content)


def swap_shards_and_indices(path):
    swap_shards(path)
    swap_shards(path.with_suffix(".index"))


def swap_records(path):
    content, entries = path.read_bytes(), tfrecord.unpacked_index(path.with_suffix(".index").read_bytes())
    size = int(entries["length"][0]) + 16
    path.write_bytes(content[size : 2 * size] + content[:size] + content[2 * size :])


def cut_index(path):
    cut(path.with_suffix(".index"))


def no_shard(path):
    path.unlink()


def cut_manifest(path):
    cut(path.with_name("train.manifest.json"))


def edit_manifest(path):
    manifest = path.with_name("train.manifest.json")
    manifest.write_text(manifest.read_text().replace('"bell"', '"ball"'))


def foreign_manifest(path):
    path.with_name("train.manifest.json").write_text(json.dumps({"format": "another"}))


FAULTS = [cut, cut_at_record, grow, double_record, empty, swap_shards, swap_shards_and_indices, swap_records, cut_index,
          no_shard, cut_manifest, edit_manifest, foreign_manifest]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_passes_verify_or_the_reader(tmp_path, fault):
    # Clips of one size, so that swapped records fit each other's place.
    clips = [dataclasses.replace(tiny_clip(i), frames=tiny_clip().frames) for i in range(6)]
    records.write_split(tmp_path, "train", clips, 2, classes=CLASSES, source={})
    before = [records.RecordSource(tmp_path, "train")[i] for i in range(6)]
    fault(tmp_path / "train-00000-of-00002.tfrecord")
    assert records.verify(tmp_path)

    def read_all():
        source = records.RecordSource(tmp_path, "train", verify_shards=fault is swap_shards_and_indices)
        assert [source[i] for i in range(6)] == before

    with pytest.raises(UserError) as caught:
        read_all()
    assert caught.value.exit_code == 78
    assert "train" in str(caught.value)


def test_verify_names_what_checksums_cannot_see(tmp_path):
    clips = [tiny_clip(0), tiny_clip(0), tiny_clip(2)]
    bad = example.pack({"schema": [1]})
    records.write_split(tmp_path, "train", [*clips, bad], 1, classes=("bell", "drum"), source={})
    (tmp_path / "old-00000-of-00001.tfrecord").write_bytes(b"")
    (tmp_path / "train-00000-of-00009.tfrecord").write_bytes(b"")
    faults = records.verify(tmp_path)
    for words in ("record 0 (row 0) holds the class 'siren'", "record 3 (row 3) cannot be decoded: the record lacks id",
                  "old-00000-of-00001.tfrecord: its split has no manifest",
                  "train-00000-of-00009.tfrecord: the manifest does not name it"):  # fmt: skip
        assert any(words in fault for fault in faults), words
    records.write_split(tmp_path, "train", clips, 1, classes=CLASSES, source={}, overwrite=True)
    assert any("record 1 (row 1) has the id 'clip-0000'" in fault for fault in records.verify(tmp_path))


def test_source_is_pickled_without_its_files_and_read_from_many_threads(tmp_path):
    write(tmp_path, 8, 3)
    source = records.RecordSource(tmp_path, "train")
    expected = [source[i] for i in range(8)]
    copy = pickle.loads(pickle.dumps(source))
    assert repr(copy) == repr(source)
    wrong = []
    threads = [
        threading.Thread(target=lambda: wrong.extend(i for _ in range(20) for i in range(8) if copy[i] != expected[i]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_missing_directory_and_split(tmp_path):
    with pytest.raises(UserError, match="no directory") as caught:
        records.RecordSource(tmp_path / "none", "train")
    assert caught.value.exit_code == 2
    with pytest.raises(UserError, match="it holds no records"):
        records.RecordSource(tmp_path, "train")
    write(tmp_path)
    with pytest.raises(UserError, match="no split 'val' in .* it holds train"):
        records.RecordSource(tmp_path, "val")


def test_command(tmp_path, capsys):
    assert cli.main(["data", "verify", str(tmp_path)]) == 2
    assert cli.main(["data", "verify", str(tmp_path / "none")]) == 2
    write(tmp_path)
    capsys.readouterr()
    assert cli.main(["data", "verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
    grow(tmp_path / "train-00001-of-00002.tfrecord")
    assert cli.main(["data", "verify", str(tmp_path)]) == 1
    assert "train-00001-of-00002.tfrecord" in capsys.readouterr().out


def test_example_bytes_are_the_wire_format():
    # Worked by hand from feature.proto: key "a" -> int64_list {1, 300}, packed.
    assert example.pack({"a": [1, 300]}).hex() == "0a0e0a0c0a0161120" + "71a050a0301ac02"
    assert example.unpack(bytes.fromhex("0a0e0a0c0a016112071a050a0301ac02")) == {"a": [1, 300]}
    with pytest.raises(ValueError, match="not a tf.train.Example"):
        example.unpack(b"\xff\xff")
    with pytest.raises(TypeError):
        example.pack({"a": ["text"]})


@pytest.mark.full
def test_tensorflow_reads_what_we_write_and_we_read_what_it_writes(tmp_path):
    tf = pytest.importorskip("tensorflow")
    write(tmp_path, 5, 2, clip=small_clip)
    source = records.RecordSource(tmp_path, "train")
    paths = [str(path) for path in sorted(tmp_path.glob("*.tfrecord"))]
    read = [record.numpy() for record in tf.data.TFRecordDataset(paths)]
    assert read == [source[i] for i in (0, 2, 4, 1, 3)]
    clip = small_clip()
    parsed = tf.io.parse_single_example(read[0], {
        "frames": tf.io.FixedLenFeature([3], tf.string),
        "sound": tf.io.FixedLenFeature([], tf.string),
        "sound/rate": tf.io.FixedLenFeature([], tf.int64),
        "frames/captions": tf.io.FixedLenFeature([3], tf.string),
        "objects/sounding": tf.io.FixedLenFeature([3, 3], tf.int64),
        "objects/names": tf.io.VarLenFeature(tf.string),
    })  # fmt: skip
    np.testing.assert_array_equal(tf.io.decode_raw(parsed["sound"], tf.int16), clip.sound)
    assert parsed["frames/captions"][0].numpy().decode() == clip.captions[0]
    assert parsed["sound/rate"] == 16000
    np.testing.assert_array_equal(parsed["objects/sounding"], [item.sounding for item in clip.objects])
    theirs = tf.io.decode_jpeg(parsed["frames"][0], dct_method="INTEGER_ACCURATE").numpy()
    assert np.abs(theirs.astype(int) - records.decode_clip(read[0]).frames[0]).max() <= 2
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in read:
            writer.write(tf.train.Example.FromString(record).SerializeToString())
    assert [example.unpack(record).keys() for record in tfrecord.scan((tmp_path / "theirs").read_bytes())] == [
        example.unpack(record).keys() for record in read
    ]
