"""Records by number: shards of any fullness, both file formats, a lost index, files dropped and opened again."""

import logging
import pathlib
import pickle

import numpy as np
import pytest
from small_clips import CLASSES, tiny_clip

from ssu_jax.data import records, shards, storage, tfrecord
from ssu_jax.types import UserError

NUMBER = 7


def write(directory, file_format: str = "tfrecord", num_shards: int = 3, number: int = NUMBER):
    clips = map(tiny_clip, range(number))
    return records.write_split(
        directory, "train", clips, num_shards, classes=CLASSES, source={}, file_format=file_format
    )  # fmt: skip


def ids(source) -> list[str]:
    return [records.decode_labels(source[number]).id for number in range(len(source))]


@pytest.mark.parametrize("counts", [[3, 3, 2], [1], [0], [], [5, 0, 2, 7], [0, 0, 1], [2, 3, 3]])
def test_numbers_run_row_by_row_over_the_shards(counts):
    numbering = shards.Numbering(counts)
    by_hand = [(shard, row) for row in range(max(counts, default=0)) for shard in range(len(counts))
               if counts[shard] > row]  # fmt: skip
    assert [numbering.place(number) for number in range(sum(counts))] == by_hand
    assert [numbering.number(*place) for place in by_hand] == list(range(sum(counts)))


@pytest.mark.parametrize("file_format", shards.FILE_FORMATS)
def test_both_formats_hold_the_same_records(tmp_path, file_format):
    manifest = write(tmp_path, file_format)
    assert manifest == write(tmp_path / "again", file_format)
    source = records.RecordSource(tmp_path, "train", verify_shards=True)
    assert [source[number] for number in range(NUMBER)] == [records.encode_clip(tiny_clip(i)) for i in range(NUMBER)]
    assert not records.verify(tmp_path)
    copy = pickle.loads(pickle.dumps(source))
    assert ids(copy) == ids(source)


def test_damage_of_an_array_record_is_named_with_file_and_record(tmp_path):
    write(tmp_path, "array_record", num_shards=1)
    path = tmp_path / "train-00000-of-00001.array_record"
    content = path.read_bytes()
    at = content.index(b"clip-0004")
    path.write_bytes(content[:at] + b"klip" + content[at + 4 :])
    with pytest.raises(
        UserError, match=r"train-00000-of-00001.array_record: record 4 \(row 4\) cannot be read"
    ) as error:
        records.RecordSource(tmp_path, "train")[4]
    assert error.value.exit_code == 78
    faults = records.verify(tmp_path)
    assert len(faults) == 2
    assert "sha256" in faults[0]
    assert "record 4 (row 4) cannot be read" in faults[1]
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match="the manifest says"):
        records.RecordSource(tmp_path, "train")[0]
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        records.RecordSource(tmp_path, "train")[0]
    assert "missing" in records.verify(tmp_path)[0]


def test_every_flipped_byte_of_an_array_record_is_found_by_verify(tmp_path):
    write(tmp_path, "array_record", num_shards=1, number=2)
    path = tmp_path / "train-00000-of-00001.array_record"
    content = path.read_bytes()
    before = [records.encode_clip(tiny_clip(number)) for number in range(2)]
    for at in np.random.default_rng(0).choice(len(content), 60, replace=False):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        assert records.verify(tmp_path), at
        assert _read_or_refused(tmp_path) in (before, 78), at  # padding may be damaged unseen


def _read_or_refused(directory) -> list[bytes] | int:
    try:
        source = records.RecordSource(directory, "train")
        return [source[number] for number in range(len(source))]
    except UserError as error:
        return error.exit_code


def test_a_missing_index_is_made_again_with_a_notice(tmp_path, caplog):
    write(tmp_path)
    index = tmp_path / "train-00001-of-00003.index"
    content = index.read_bytes()
    index.unlink()
    with caplog.at_level(logging.WARNING):
        assert ids(records.RecordSource(tmp_path, "train", verify_shards=True))[1] == "clip-0001"
    assert [record.getMessage() for record in caplog.records] == [f"{index}: missing, made again from the shard"]
    assert index.read_bytes() == content
    assert not records.verify(tmp_path)


def test_an_index_is_not_made_of_a_damaged_or_foreign_shard(tmp_path):
    write(tmp_path)
    names = ["train-00000-of-00003", "train-00002-of-00003"]
    (tmp_path / f"{names[0]}.index").unlink()
    path = tmp_path / f"{names[0]}.tfrecord"
    content = path.read_bytes()
    path.write_bytes((tmp_path / f"{names[1]}.tfrecord").read_bytes())
    with pytest.raises(UserError, match="missing, and its records are not those of the manifest"):
        records.RecordSource(tmp_path, "train")[0]
    path.write_bytes(content[:40] + b"?" + content[41:])
    with pytest.raises(UserError, match="the checksum of the data is wrong"):
        records.RecordSource(tmp_path, "train")[0]
    assert not (tmp_path / f"{names[0]}.index").exists()


def test_an_index_that_cannot_be_written_is_kept_in_memory(tmp_path, caplog, monkeypatch):
    write(tmp_path)
    (tmp_path / "train-00000-of-00003.index").unlink()

    def refused(*_):
        raise UserError("read-only")

    monkeypatch.setattr(storage.files, "atomic_write", refused)
    with caplog.at_level(logging.WARNING):
        assert ids(records.RecordSource(tmp_path, "train"))[0] == "clip-0000"
    assert "cannot be written there" in caplog.text


def test_few_files_are_open_at_a_time(tmp_path, monkeypatch):
    write(tmp_path, num_shards=NUMBER)
    opened = []
    real = tfrecord.Reader.__init__
    monkeypatch.setattr(tfrecord.Reader, "__init__", lambda self, *facts: (opened.append(1), real(self, *facts))[1])
    source = records.RecordSource(tmp_path, "train")
    source._shards = storage.OpenFiles(source._open, limit=2)
    descriptors = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    for number in (0, 1, 0, 1, 2, 0, 1):
        assert records.decode_labels(source[number]).id == f"clip-{number:04d}"
    assert len(opened) == 5  # 0, 1, then 2 in the place of 0, 0 in that of 1, 1 in that of 2
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) <= descriptors + 2


def test_a_shard_cut_while_it_is_read_is_an_error_and_no_crash(tmp_path):
    write(tmp_path, num_shards=1)
    source = records.RecordSource(tmp_path, "train")
    source[0]
    path = tmp_path / "train-00000-of-00001.tfrecord"
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(UserError, match=r"record 6 \(row 6\) at byte \d+: the file ends inside the record"):
        source[6]
