"""`ssu prepare NAME`: checked before work starts, every fault named, the records what the layout reads."""

import json
import pathlib

import numpy as np
import pytest

from ssu_jax.cli import main
from ssu_jax.data import records
from ssu_jax.data.datasets import LAYOUTS
from ssu_jax.preparation import data_sets
from ssu_jax.preparation.tasks import Execution


def run(*arguments) -> int:
    return main.main(["prepare", *map(str, arguments)])


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    assert run("avsbench_s4", "--write-example", folder) == 0
    return folder


def test_the_records_are_what_the_layout_reads(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("avsbench_s4", "--source", source, "--check") == 0
    assert run("avsbench_s4", "--source", source, "--out", out, "--num-workers", 0) == 0
    assert "0 with faults" in capsys.readouterr().err
    assert not records.verify(out)
    layout = LAYOUTS["avsbench_s4"](source)
    by_split = data_sets.listed(layout)
    assert sorted(by_split) == ["test", "train", "val"]
    for split, items in by_split.items():
        read = records.RecordSource(out, split)
        assert len(read) == len(items)
        for number, item in enumerate(items):
            assert read[number] == records.encode_clip(layout.load(item))
    train = records.decode_labels(records.RecordSource(out, "train")[0])
    assert train.masks_known.tolist() == [True, *[False] * 4]  # its masks are of the first frame alone
    assert run("avsbench_s4", "--source", source, "--out", out, "--num-workers", 0) == 2
    assert "already holds the split" in capsys.readouterr().err


def test_every_bad_file_is_named_before_work_starts(source, tmp_path, capsys):
    out = tmp_path / "out"
    gone, cut = (sorted((source).rglob(f"gt_masks/{split}/**/*.png"))[0] for split in ("train", "test"))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:20])
    assert run("avsbench_s4", "--source", source, "--check") == 1
    told = capsys.readouterr()
    assert str(gone) in told.out
    assert str(cut) in told.out
    assert "2 with faults" in told.err
    assert run("avsbench_s4", "--source", source, "--out", out) == 78
    told = capsys.readouterr()
    assert "2 of 6 clips cannot be read (listed above), --skip-bad allows 0" in told.err
    assert not out.exists()
    assert run("avsbench_s4", "--source", source, "--out", out, "--skip-bad", 2, "--num-workers", 0) == 0
    counted = {split: records.RecordSource(out, split).manifest for split in ("train", "val", "test")
               if (out / f"{split}.manifest.json").exists()}  # fmt: skip
    skipped = [pair for manifest in counted.values() for pair in manifest["source"].get("skipped", [])]
    assert len(skipped) == 2
    assert sum(manifest["num_records"] for manifest in counted.values()) == 4
    assert any(str(gone) in reason for _, reason in skipped)
    reports = [json.loads(path.read_text()) for path in out.glob("*.faults.json")]
    assert sum(map(len, reports)) == 2


def test_faults_that_only_decoding_finds_end_the_work_with_their_names(tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    assert run("raw", "--write-example", source) == 0
    video = sorted(source.rglob("*.mkv"))[0]
    content = bytearray(video.read_bytes())
    middle = slice(len(content) // 4, 3 * len(content) // 4)
    content[middle] = np.random.default_rng(0).bytes(middle.stop - middle.start)
    video.write_bytes(content)
    assert run("raw", "--source", source, "--out", out, "--num-workers", 0) == 78
    told = capsys.readouterr()
    assert video.name in told.err + told.out


def test_formats_runners_and_processes_give_the_same_records(tmp_path):
    source = tmp_path / "source"
    assert run("f_music", "--write-example", source) == 0
    layout = LAYOUTS["f_music"](source)
    for split, items in data_sets.listed(layout, "train").items():
        for name, execution in (("here", Execution()), ("two", Execution("processes", 2))):
            data_sets.prepare(layout, tmp_path / name, split, items, {}, execution=execution)
        data_sets.prepare(layout, tmp_path / "ar", split, items, {}, execution=Execution(), file_format="array_record")
    files = {name: {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("here", "two")}
    assert files["here"] == files["two"]
    here, there = (records.RecordSource(tmp_path / name, "train") for name in ("here", "ar"))
    assert [here[i] for i in range(len(here))] == [there[i] for i in range(len(there))]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["raw"], "wants --source DIR and --out DIR"),
        (["raw", "--source", "nowhere", "--check"], "nowhere: no such folder"),
        (["raw", "--source", ".", "--out", "x"], "holds no videos"),
        (["avss", "--source", ".", "--check"], "metadata.csv"),
        (["raw", "--source", ".", "--check", "--frame-size", "3"], "--frame-size must be 16 to 4096"),
        (["raw", "--write-example", __file__], "something is there already: name a new or an empty folder"),
        (["raw", "--write-example", str(pathlib.Path(__file__).parent)], "something is there already"),
        (["nothing", "--source", "."], "invalid choice: 'nothing'"),
        (["raw", "--source", ".", "--runner", "fast"], "invalid choice: 'fast'"),
    ],
)
def test_mistakes_are_one_line(arguments, word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = run(*arguments)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
