"""`ssu prepare NAME`: checked before work starts, every fault named, the records what the layout reads."""

import json
import pathlib

import numpy as np
import pytest

from ssu_jax.cli import main
from ssu_jax.config import sizes
from ssu_jax.data import mixtures, records
from ssu_jax.data.datasets import LAYOUTS, example_files
from ssu_jax.preparation import data_sets
from ssu_jax.preparation.tasks import Execution
from ssu_jax.types import Clip


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


def test_sound_is_decoded_from_the_files_at_the_rate_asked_for(tmp_path):
    """A tone of 15 kHz, of which 16 kHz know nothing."""
    source = tmp_path / "source"
    tone = np.sin(2 * np.pi * 15_000 * np.arange(44100) / 44100)
    clip = Clip(
        "tone", np.zeros((1, 32, 32, 3), np.uint8), np.array([0.5]), (8000 * tone).astype(np.int16), 44100,
        np.ones(1, bool), ("",),
    )  # fmt: skip
    example_files.write_video(source / "tone.mp4", clip)
    loudest = {}
    for rate in (16000, 44100):
        out = tmp_path / str(rate)
        asked = () if rate == 16000 else ("--sample-rate", rate)
        assert run("raw", "--source", source, "--out", out, "--num-workers", 0, *asked) == 0
        read = records.RecordSource(out, "train")
        assert read.manifest["source"]["sample_rate"] == rate
        made = records.decode_clip(read[0])
        assert (made.sample_rate, len(made.sound)) == (rate, rate)
        spectrum = np.abs(np.fft.rfft(made.sound / 32768))
        loudest[rate] = (int(spectrum.argmax()), spectrum.max() / rate)
    assert loudest[44100][0] == 15_000
    assert loudest[44100][1] > 0.1
    assert loudest[16000][1] < 0.005


@pytest.mark.parametrize(
    ("name", "split", "rows"),
    [("music", "test", {1: 1, 2: 1}), ("vggsound", "train", {1: 3}), ("vgg_ss", "test", {1: 6})],
)
def test_examples_at_44100_hz_are_mixed_and_shown_as_they_are(name, split, rows, tmp_path):
    """rows: number of sources -> records that have as many."""
    source, out = tmp_path / "source", tmp_path / "out"
    assert run(name, "--write-example", source) == 0
    asked = ("--sample-rate", 44100, "--split", split, "--num-workers", 0)
    assert run(name, "--source", source, "--out", out, *asked) == 0
    config = sizes.tiny()
    config.family, config.data.dir, config.data.sample_rate = "tvsl", str(out), 44100
    config.data.classes = tuple(records.RecordSource(out, split).manifest["classes"])
    config.tvsl.trio, config.tvsl.sound_seconds = "audioclip", 5
    for num_sources, wanted in rows.items():
        (shown,) = mixtures.eval_mixtures(config, split, 6, num_sources=num_sources, as_it_is=True)
        told = shown.sources[:, 0] >= 0
        assert told.sum() == wanted
        assert shown.sound.shape == (6, 5 * 44100)
        if (name, num_sources) != ("music", 2):  # its clip is one of the world's silent ones
            assert np.abs(shown.sound[told]).max() > 0.1
        assert shown.region_known[told].all() == (name != "vggsound")
        assert shown.regions[told].any((2, 3)).all() == (name != "vggsound")
    if name == "music":
        return  # one solo and one duet are no mixture
    mixed = next(mixtures.eval_mixtures(config, split, 2))
    assert mixed.pictures.shape == (2, 32, 64, 3)
    assert (mixed.sources[:, 0] != mixed.sources[:, 1]).all()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["raw"], "wants --source DIR and --out DIR"),
        (["raw", "--source", "nowhere", "--check"], "nowhere: no such folder"),
        (["raw", "--source", ".", "--out", "x"], "holds no videos"),
        (["avss", "--source", ".", "--check"], "metadata.csv"),
        (["raw", "--source", ".", "--check", "--frame-size", "3"], "--frame-size must be 16 to 4096"),
        (
            ["raw", "--source", ".", "--check", "--sample-rate", "300"],
            "--sample-rate must be 8000 to 48000 Hz, got 300",
        ),
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
