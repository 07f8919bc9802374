"""Injected faults: each is named with its file and record, by the check and by the reader; none passes in silence."""

import io
import math
import re
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from small_clips import CLASSES, tiny_clip

from ssu_jax.config import DataConfig
from ssu_jax.data import example, pipeline, records, tfrecord
from ssu_jax.types import UserError

NUMBER = 6
FIELDS = {"length": (0, 8), "checksum of the length": (8, 12), "data": (12, -4), "checksum of the data": (-4, None)}


@pytest.fixture
def shard(tmp_path):
    """The one shard of a split; records of one length, so that any may stand for any."""
    clips = map(tiny_clip, range(NUMBER))
    records.write_split(tmp_path, "train", clips, 1, classes=CLASSES, source={})
    return tmp_path / "train-00000-of-00001.tfrecord"


def first_error(directory) -> UserError:
    source = records.RecordSource(directory, "train")
    with pytest.raises(UserError) as caught:
        _ = [source[number] for number in range(len(source))]
    assert caught.value.exit_code == 78
    return caught.value


def test_truncation_anywhere(shard):
    content = shard.read_bytes()
    starts = tfrecord.unpacked_index(shard.with_suffix(".index").read_bytes())["offset"].tolist()
    for length in np.random.default_rng(5).integers(len(content), size=20).tolist():
        shard.write_bytes(content[:length])
        broken = sum(start <= length for start in starts) - 1  # the record that is cut
        faults = records.verify(shard.parent)
        assert any(f"{shard}: it has {length} bytes" in fault for fault in faults)
        if length not in starts:
            told = [fault for fault in faults if f"record {broken} (row {broken}) at byte {starts[broken]}" in fault]
            assert told, length
            assert "the file ends inside the record" in told[0]
        assert f"{shard}: it has {length} bytes, its index says {len(content)}" in str(first_error(shard.parent))


@pytest.mark.parametrize("field", FIELDS)
def test_flipped_bits_of_every_field(shard, field):
    content = shard.read_bytes()
    entries = tfrecord.unpacked_index(shard.with_suffix(".index").read_bytes())
    rng = np.random.default_rng(len(field))
    for _ in range(50):
        row = int(rng.integers(NUMBER))
        frame = slice(int(entries[row]["offset"]), int(entries[row]["offset"] + entries[row]["length"]) + 16)
        places = range(*frame.indices(len(content)))[slice(*FIELDS[field])]
        byte = int(rng.choice(places))
        shard.write_bytes(content[:byte] + bytes([content[byte] ^ 1 << int(rng.integers(8))]) + content[byte + 1 :])
        where = f"{shard}: record {row} (row {row}) at byte {frame.start}: the checksum of the "
        said = "length is wrong" if "length" in field else "data is wrong"
        assert where + said in str(first_error(shard.parent))
        assert where + said in "\n".join(records.verify(shard.parent))


def test_the_manifest_of_an_earlier_writing(shard):
    manifest = shard.parent / "train.manifest.json"
    stale = manifest.read_bytes()
    clips = (tiny_clip(number) for number in range(50, 50 + NUMBER))
    records.write_split(shard.parent, "train", clips, 1, classes=CLASSES, source={}, overwrite=True)
    manifest.write_bytes(stale)
    faults = records.verify(shard.parent)
    assert [f"{path}: its sha256 is not the manifest's" in faults for path in (shard, shard.with_suffix(".index"))]
    with pytest.raises(UserError, match="its sha256 is not the manifest's") as caught:
        records.RecordSource(shard.parent, "train", verify_shards=True)
    assert caught.value.exit_code == 78


def bomb(size: int) -> bytes:
    """A JPEG of 8 x 8 whose header claims more."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", subsampling=0)
    content = bytearray(stream.getvalue())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", size, size)
    return bytes(content)


BAD_RECORDS = {
    "another schema": ({"schema": [9]}, "record schema 9, this version of ssu_jax reads 1 to 2"),
    "frames too large": ({"frames/size": [50_000, 50_000]}, "are none, or too much to decode"),
    "a picture that claims more": ({"frames": [bomb(40_000)] * 2}, "a frame claims to be far larger than 8 x 8"),
    "a picture of another size": ({"frames": [bomb(9000)] * 2}, "a frame is RGB 9000 x 9000, not RGB 8 x 8"),
    "a caption in another encoding": ({"frames/captions": ["grün".encode("latin-1"), b""]}, "utf-8"),
    "masks of another size": ({"frames/size": [16, 4]}, ""),
    "run lengths of another size": ({"masks": [b"05"] * 4}, "run lengths do not make masks of 8 x 8"),
    "a box outside the frame": (
        {"objects/has_boxes": [0, 1, 0], "boxes": [math.nan] * 4 + [0.5, 0.25, 1.25, 0.5]},
        "the box of 'drum' in second 1 is 0.5, 0.25, 1.25, 0.5: left, top, right, bottom must lie in the frame, 0 to 1",
    ),
    "a box turned over": (
        {"objects/has_boxes": [1, 0, 0], "boxes": [0.5, 0.75, 0.75, 0.5, *[math.nan] * 4]},
        "the box of 'bell' in second 0 is 0.5, 0.75, 0.75, 0.5:",
    ),
    "a box too few": ({"objects/has_boxes": [1, 0, 0], "boxes": [0.5] * 4}, "the boxes do not fit"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_records_whose_checksums_are_right(tmp_path, name):
    """What a writer did wrong: found by the check and by the reader, before anything large is decoded."""
    change, words = BAD_RECORDS[name]
    features = {key: list(values) for key, values in example.unpack(records.encode_clip(tiny_clip(1))).items()}
    bad = example.pack(features | change)
    records.write_split(tmp_path, "train", [tiny_clip(0), bad, tiny_clip(2)], 1, classes=CLASSES, source={})
    tracemalloc.start()
    faults = records.verify(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert len(faults) == 1
    assert re.search(
        rf"train-00000-of-00001.tfrecord: record 1 \(row 1\) cannot be decoded: .*{re.escape(words)}", faults[0]
    )
    source = pipeline.open_source(str(tmp_path), "train", DataConfig(classes=CLASSES))
    with pytest.raises(UserError, match=rf"split train: record 1 cannot be used: .*{re.escape(words)}") as caught:
        records.read(source, 1)
    assert caught.value.exit_code == 78
