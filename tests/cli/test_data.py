"""`ssu data stats` and `ssu data show` through the command line."""

import json

import pytest
import small_clips

from ssu_jax.cli import main
from ssu_jax.data import records


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the records `d` of three clips in `train` and one in `val`."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 3), ("val", 1)):
        clips = [small_clips.small_clip(number) for number in range(count)]
        records.write_split("d", split, clips, 1, classes=small_clips.CLASSES, source={})
    return tmp_path


def test_stats(place, capsys):
    assert main.main(["data", "stats", "d", "--json", "s.json", "--plots", "p"]) == 0
    told = capsys.readouterr()
    assert "train: 3 clips, 9 s (8 s valid)" in told.out
    assert "val: 1 clip, 3 s (3 s valid)" in told.out
    assert told.err == ""  # a bar for a terminal only
    assert json.loads((place / "s.json").read_text())["splits"]["val"]["clips"] == 1
    assert sorted(path.name for path in (place / "p").iterdir()) == ["train.png", "val.png"]
    assert main.main(["data", "stats", "d", "--split", "val"]) == 0
    assert "train" not in capsys.readouterr().out


def test_show(place, capsys):
    assert main.main(["data", "show", "d", "--split", "train", "--index", "2", "--id", "clip-0001", "--out", "o"]) == 0
    names = ["train-000002.png", "train-000002.mp4", "train-000001.png", "train-000001.mp4"]
    assert capsys.readouterr().out.splitlines() == [f"o/{name}" for name in names]
    assert sorted(path.name for path in (place / "o").iterdir()) == sorted(names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stats", "nowhere"], ["nowhere", "ssu prepare"]),
        (["stats", "."], ["holds no records"]),
        (["stats", "d", "--split", "tset"], ["'tset'", "train, val"]),
        (["stats", "d", "--json", "d/train.manifest.json/s.json"], ["s.json", "a part of the path is a file"]),
        (["show", "d", "--out", "o"], ["--index", "--id"]),
        (["show", "d", "--index", "3", "--out", "o"], ["holds 3 clips", "0 to 2", "--index 3"]),
        (["show", "d", "--index", "0", "-1", "--out", "o"], ["--index -1"]),
        (["show", "d", "--id", "clip", "--out", "o"], ["'clip'", "'clip-0000'"]),
        (["show", "d", "--split", "test", "--index", "0", "--out", "o"], ["'test'", "train, val"]),
        (["show", "d", "--index", "one", "--out", "o"], ["--index", "'one'"]),
        (["show", "d", "--index", "0"], ["--out"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(place, capsys, arguments, said):
    before = sorted(place.rglob("*"))
    assert main.main(["data", *arguments]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert all(part in error[0] for part in said)
    assert sorted(place.rglob("*")) == before
