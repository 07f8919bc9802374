"""Splits made by tasks: the same bytes whoever makes them, restarts that redo nothing, faults collected and counted."""

import importlib.util
import json
import os
import pathlib

import pytest
from small_clips import CLASSES
from worlds import MakeTiny

from ssu_jax.data import records
from ssu_jax.preparation import splits, tasks
from ssu_jax.preparation.tasks import Execution
from ssu_jax.types import UserError

NUMBER, SHARDS = 11, 4
HERE = pathlib.Path(__file__).parent


@pytest.fixture
def make(tmp_path, monkeypatch):
    # Worker processes import what they are to call.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent / "data")]))
    (tmp_path / "source").mkdir()
    return MakeTiny(tmp_path / "source")


def prepare(make, directory, execution: Execution = Execution(), stamps=range(NUMBER), **options):  # noqa: B008
    job = splits.Job(make, range(NUMBER), [f"clip-{i:04d}" for i in range(NUMBER)], stamps, CLASSES, {"made": "here"})
    return splits.prepare_split(
        str(directory), "train", job, **{"num_shards": SHARDS, "execution": execution, **options}
    )  # fmt: skip


def content(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_processes_make_the_bytes_that_one_makes(make, tmp_path, file_format):
    prepare(make, tmp_path / "one", file_format=file_format)
    prepare(make, tmp_path / "three", Execution("processes", 3), file_format=file_format)
    assert content(tmp_path / "one") == content(tmp_path / "three")
    assert not records.verify(tmp_path / "one")
    source = records.RecordSource(tmp_path / "one", "train")
    assert [records.decode_labels(source[i]).id for i in range(NUMBER)] == [f"clip-{i:04d}" for i in range(NUMBER)]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(content(tmp_path / "one"))


def test_eight_processes_too(make, tmp_path):
    prepare(make, tmp_path / "one", num_shards=NUMBER)
    prepare(make, tmp_path / "eight", Execution("processes", 8), num_shards=NUMBER)
    assert content(tmp_path / "one") == content(tmp_path / "eight")


@pytest.mark.skipif(not importlib.util.find_spec("apache_beam"), reason="wants Apache Beam")
def test_beam_makes_them_too(make, tmp_path):
    prepare(make, tmp_path / "one")
    prepare(make, tmp_path / "beam", Execution("direct", 2))
    assert content(tmp_path / "one") == content(tmp_path / "beam")


def test_without_beam_its_runners_are_refused_and_auto_does_without(make, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ssu_jax\[beam\]'"):
        prepare(make, tmp_path / "a", Execution("flink", 2))
    assert not (tmp_path / "a").exists()
    prepare(make, tmp_path / "b", Execution("auto", 2))
    assert not records.verify(tmp_path / "b")


def test_a_stopped_run_goes_on_where_it_was(make, tmp_path):
    """Its process dies in shard 2; shards 0 and 1 are not made again."""
    wanted = prepare(make, tmp_path / "untouched")
    (make.place / "kill-6").touch()
    with pytest.raises(UserError, match="was killed, perhaps for lack of memory: start again"):
        prepare(make, tmp_path / "out", Execution("processes", 1))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".train.partial"]
    (make.place / "kill-6").unlink()
    before = make.asked()
    assert prepare(make, tmp_path / "out") == wanted
    assert make.asked() - before == splits.SAMPLES + 3 + 2  # clips 2, 6, 10 and 3, 7
    assert content(tmp_path / "out") == content(tmp_path / "untouched")
    assert not (tmp_path / "out" / ".train.partial").exists()


def test_a_shard_whose_files_changed_meanwhile_is_made_again(make, tmp_path):
    (make.place / "kill-6").touch()
    with pytest.raises(UserError, match="start again"):
        prepare(make, tmp_path / "out", Execution("processes", 1))
    (make.place / "kill-6").unlink()
    before = make.asked()
    changed = [number if number != 5 else "newer" for number in range(NUMBER)]
    prepare(make, tmp_path / "out", stamps=changed)
    assert make.asked() - before == splits.SAMPLES + 3 + 3 + 2  # shard 1 too, which holds clip 5
    assert not records.verify(tmp_path / "out")


def test_clips_that_cannot_be_made_are_all_named_and_nothing_is_sealed(make, tmp_path):
    for number in (1, 6):
        (make.place / f"bad-{number}").touch()
    with pytest.raises(UserError, match=r"2 of 11 clips cannot be made .*clip-0001: .*video-1.mp4: at 3.2 s") as error:
        prepare(make, tmp_path / "out")
    assert error.value.exit_code == 78
    report = json.loads((tmp_path / "out" / "train.faults.json").read_text())
    assert [line["clip"] for line in report] == ["clip-0001", "clip-0006"]
    assert "at 3.2 s: cannot be decoded" in report[0]["fault"]
    assert not list((tmp_path / "out").glob("*.tfrecord"))
    # Once they are mended only the two shards that held them are made.
    for number in (1, 6):
        (make.place / f"bad-{number}").unlink()
    before = make.asked()
    manifest = prepare(make, tmp_path / "out")
    assert make.asked() - before == splits.SAMPLES + 6
    assert manifest == prepare(make, tmp_path / "other")
    assert not (tmp_path / "out" / "train.faults.json").exists()


def test_bad_clips_within_the_budget_are_left_out_listed_and_counted(make, tmp_path):
    for number in (1, 5, 9):  # all of shard 1
        (make.place / f"bad-{number}").touch()
    with pytest.raises(UserError, match="3 of 11"):
        prepare(make, tmp_path / "out", skip_bad=2)
    manifest = prepare(make, tmp_path / "out", skip_bad=3)
    assert manifest["num_records"] == NUMBER - 3
    assert [name for name, _ in manifest["source"]["skipped"]] == ["clip-0001", "clip-0005", "clip-0009"]
    source = records.RecordSource(tmp_path / "out", "train")
    found = [records.decode_labels(source[number]).id for number in range(len(source))]
    assert sorted(found) == [f"clip-{i:04d}" for i in range(NUMBER) if i not in (1, 5, 9)]
    assert not records.verify(tmp_path / "out")
    assert manifest == prepare(make, tmp_path / "again", Execution("processes", 2), skip_bad=3)


def test_too_little_room_is_said_before_anything_is_made(make, tmp_path, monkeypatch):
    monkeypatch.setattr(splits.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 3000}))
    with pytest.raises(UserError, match="about 0.0 GB are needed for 11 clips, 0.0 GB are free"):
        prepare(make, tmp_path / "out")
    assert make.asked() == splits.SAMPLES
    assert not (tmp_path / "out").exists()


def test_the_number_of_shards_depends_on_the_clips_alone():
    assert [splits.default_num_shards(number) for number in (1, 7, 100, 1024, 1025, 3976)] == [1, 7, 8, 8, 9, 32]


def test_an_old_split_stays_until_the_new_one_is_whole(make, tmp_path):
    old = prepare(make, tmp_path / "out")
    with pytest.raises(UserError, match="already holds the split 'train'"):
        prepare(make, tmp_path / "out")
    (make.place / "bad-0").touch()
    with pytest.raises(UserError, match="1 of 11"):
        prepare(make, tmp_path / "out", num_shards=2, overwrite=True)
    assert records.RecordSource(tmp_path / "out", "train").manifest == old
    (make.place / "bad-0").unlink()
    assert len(prepare(make, tmp_path / "out", num_shards=2, overwrite=True)["shards"]) == 2
    assert not records.verify(tmp_path / "out")
