"""Folders in a bucket: the same records as on a disk, one range request a record."""

import os
import pathlib

import pytest
from fake_bucket import FakeBucket
from small_clips import CLASSES, tiny_clip

from ssu_jax.data import records, storage
from ssu_jax.types import UserError

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # else it asks for credentials; read when gcsfs is imported
gcsfs = pytest.importorskip("gcsfs")

URL = "gs://bucket/sets/small"


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    (tmp_path / "bucket").mkdir()
    bucket = FakeBucket(tmp_path)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.endpoint)
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield bucket
    gcsfs.GCSFileSystem.clear_instance_cache()
    bucket.close()


def write(directory, number: int = 5) -> dict:
    return records.write_split(directory, "train", map(tiny_clip, range(number)), 2, classes=CLASSES, source={})


def test_a_bucket_holds_the_same_files_and_reads_them_by_range(bucket, tmp_path):
    assert write(URL) == write(tmp_path / "here")
    there = tmp_path / "bucket" / "sets" / "small"
    assert {path.name: path.read_bytes() for path in there.iterdir() if path.is_file()} == {
        path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()
    }
    bucket.requests.clear()
    source = records.RecordSource(URL, "train")
    assert [kind for _, kind, *_ in bucket.requests] == ["list", "media"]  # the manifest
    bucket.requests.clear()
    assert [records.decode_labels(source[number]).id for number in range(5)] == [f"clip-{i:04d}" for i in range(5)]
    ranges = [wanted for _, kind, name, wanted in bucket.requests if name.endswith(".tfrecord") and kind == "media"]
    assert len(ranges) == 5
    assert all(wanted.startswith("bytes=") for wanted in ranges)
    assert bucket.count("media") == 5 + 2  # and an index a shard
    # No byte is fetched twice: what is asked for is what the shards hold.
    sizes = [int(stop) - int(start) + 1 for start, stop in (wanted[6:].split("-") for wanted in ranges)]
    assert sum(sizes) == sum(path.stat().st_size for path in there.glob("*.tfrecord"))
    assert not records.verify(URL)


def test_damage_and_absence_are_named_with_the_url(bucket, tmp_path):
    write(URL)
    shard = tmp_path / "bucket" / "sets" / "small" / "train-00001-of-00002.tfrecord"
    content = shard.read_bytes()
    shard.write_bytes(content[:30] + bytes([content[30] ^ 1]) + content[31:])
    with pytest.raises(UserError, match=rf"{URL}/train-00001-of-00002.tfrecord: record 1 \(row 0\) at byte 0") as error:
        records.RecordSource(URL, "train")[1]
    assert error.value.exit_code == 78
    assert any("record 1 (row 0)" in fault for fault in records.verify(URL))
    shard.with_suffix(".index").unlink()
    with pytest.raises(UserError, match="the checksum of the data is wrong"):
        records.RecordSource(URL, "train")[1]
    shard.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        records.RecordSource(URL, "train")[1]
    with pytest.raises(UserError, match="no directory gs://bucket/elsewhere"):
        records.RecordSource("gs://bucket/elsewhere", "train")
    with pytest.raises(UserError, match="no split 'val'"):
        records.RecordSource(URL, "val")


def test_a_lost_index_is_made_again_in_the_bucket(bucket, tmp_path):
    write(URL)
    index = tmp_path / "bucket" / "sets" / "small" / "train-00000-of-00002.index"
    content = index.read_bytes()
    index.unlink()
    assert records.decode_labels(records.RecordSource(URL, "train")[0]).id == "clip-0000"
    assert index.read_bytes() == content


def test_a_passing_failure_of_the_service_is_waited_out(bucket):
    write(URL)
    source = records.RecordSource(URL, "train")
    source[0]
    bucket.failures.append(503)
    assert records.decode_labels(source[2]).id == "clip-0002"
    assert not bucket.failures


def test_a_split_is_kept_unless_overwritten_in_a_bucket_too(bucket, tmp_path):
    write(URL)
    with pytest.raises(UserError, match="already holds the split"):
        write(URL)
    records.write_split(URL, "train", map(tiny_clip, range(3)), 1, classes=CLASSES, source={}, overwrite=True)
    names = sorted(path.name for path in (tmp_path / "bucket" / "sets" / "small").iterdir() if path.is_file())
    assert names == ["train-00000-of-00001.index", "train-00000-of-00001.tfrecord", "train.manifest.json"]


def test_a_kind_of_storage_that_is_not_known_or_not_installed_is_refused(monkeypatch):
    with pytest.raises(UserError, match="no such kind of storage"):
        storage.folder("nowhere://bucket/folder")

    def missing(url):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UserError, match=r"pip install 'ssu_jax\[gcs\]'"):
        storage.folder("gs://bucket/folder")


def test_a_folder_is_local_or_remote_by_its_name(tmp_path):
    assert not storage.is_remote(pathlib.Path("gs:/bucket"))
    assert storage.is_remote("gs://bucket")
    assert storage.folder(tmp_path).names() == []
