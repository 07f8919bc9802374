"""`ssu prepare synthetic`: the same records whatever the workers, nothing under a final name unless whole."""

import av
import numpy as np
import pytest

from ssu_jax.cli import main
from ssu_jax.data import records
from ssu_jax.data.synthetic import make_clip
from ssu_jax.preparation import synthetic
from ssu_jax.preparation.tasks import Execution
from ssu_jax.types import UserError


def prepare(directory, **changes):
    return synthetic.prepare(directory, **{
        "split": "val", "num_clips": 5, "seed": 7, "num_shards": 2, "execution": Execution(), **changes
    })  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("world")
    return directory, prepare(directory)


def test_records_are_the_clips(made):
    directory, manifest = made
    assert manifest["num_records"] == 5
    assert manifest["source"]["seed"] == 7
    assert records.verify(directory) == []
    source = records.RecordSource(directory, "val")
    for index in (0, 4):
        found, wanted = records.decode_clip(source[index]), make_clip(7, "val", index)
        assert found.id == wanted.id
        assert found.captions == wanted.captions
        np.testing.assert_array_equal(found.sound, wanted.sound)
        np.testing.assert_array_equal(found.sounding_masks, wanted.sounding_masks)
        assert np.abs(found.frames.astype(int) - wanted.frames).mean() < 3  # JPEG


def test_workers_change_no_byte(made, tmp_path):
    directory, _ = made
    prepare(tmp_path, execution=Execution("processes", 2))
    names = sorted(path.name for path in directory.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        assert (directory / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_split_is_replaced_only_when_asked(made):
    directory, manifest = made
    with pytest.raises(UserError, match="already holds the split 'val'"):
        prepare(directory, seed=8)
    assert records.RecordSource(directory, "val").digest == manifest["digest"]


def test_overwrite(tmp_path):
    prepare(tmp_path, num_clips=3, num_shards=3)
    prepare(tmp_path, num_clips=2, num_shards=1, seed=9, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "val-00000-of-00001.index", "val-00000-of-00001.tfrecord", "val.manifest.json"
    ]  # fmt: skip


def test_an_error_half_way_leaves_nothing(tmp_path, monkeypatch):
    def failing(seed, split, index):
        if index == 2:
            raise MemoryError("no room")
        return make_clip(seed, split, index)

    monkeypatch.setattr(synthetic.synthetic, "make_clip", failing)
    with pytest.raises(MemoryError):
        prepare(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--out", "x", "--split", "trian"], "wanted one of train, val, test, test-shift"),
        (["--out", "x", "--num-clips", "0"], "--num-clips must be at least 1, got 0"),
        (["--out", "x", "--num-clips", "4", "--num-shards", "5"], "--num-shards must be 1 to the number of clips (4)"),
        (["--out", "x", "--num-workers", "-1"], "--num-workers must be 0 to 256, got -1"),
        (["--out", "x", "--preview", "y.mp4"], "either --out DIR or --preview FILE.mp4"),
        ([], "either --out DIR or --preview FILE.mp4"),
        (["--out", "a_file/x"], "a part of the path is a file"),
    ],
)
def test_mistakes_are_one_line(arguments, word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").write_text("in the way")
    assert main.main(["prepare", "synthetic", *arguments]) == 2
    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]


def test_preview_has_pictures_and_sound(tmp_path):
    path = tmp_path / "world.mp4"
    assert main.main(["prepare", "synthetic", "--preview", str(path), "--num-clips", "1", "--seed", "3"]) == 0
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(10.0, abs=0.2)
        sound = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
        assert np.abs(sound).max() > 0
    assert [found.name for found in tmp_path.iterdir()] == ["world.mp4"]


def test_a_plain_preview_is_the_clip_with_nothing_drawn_in(tmp_path):
    path = tmp_path / "plain.mp4"
    assert (
        main.main(["prepare", "synthetic", "--preview", str(path), "--plain", "--num-clips", "1", "--seed", "3"]) == 0
    )
    with av.open(path) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    clip = make_clip(3, "train", 0)
    assert frames.shape == clip.frames.shape
    assert np.abs(frames.astype(int) - clip.frames).mean() < 6  # H.264 at half the colour resolution
