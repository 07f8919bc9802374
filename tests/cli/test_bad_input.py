"""Mistakes a user makes, each through the command line: one line that names the thing and the remedy, exit code 2,
nothing under a final name.
"""

import errno
import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

from ssu_jax.checkpoint import folder
from ssu_jax.cli import main
from ssu_jax.config import Config, sizes
from ssu_jax.data import records, synthetic
from ssu_jax.inference import loading
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.visualization.writer import open_video


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> pathlib.Path:
    """A folder with good things: records of the made world, a tiny model nobody has trained, a video of two seconds."""
    place = tmp_path_factory.mktemp("made")
    clips = [synthetic.make_clip(0, "test", index) for index in range(2)]
    source = {"made": "by a test"}
    records.write_split(
        place / "data", "test", map(records.encode_clip, clips), 1, classes=clips_classes(), source=source
    )
    _write_model(place / "model", sizes.tiny(), [caption for clip in clips for caption in clip.captions])
    with open_video(place / "good.mp4", 96, 96, sample_rate=16000) as writer:
        for second in range(2):
            writer.write(clips[0].frames[second], float(second), 1.0)
            writer.write_sound(clips[0].sound[None, second * 16000 : (second + 1) * 16000])
    return place


def clips_classes() -> tuple[str, ...]:
    return Config().data.classes


def _write_model(place: pathlib.Path, config: Config, captions: list[str]) -> None:
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), loading.parameter_shapes(config))
    model = folder.Model(config, Tokenizer.train(captions, config.model.vocab_size), params)
    folder.write_folder(place, model, "float32", {"step": 0})


def _visible(place: pathlib.Path) -> list[pathlib.Path]:
    """All but a working directory's lock, which is no output."""
    return [path for path in sorted(place.rglob("*")) if path.name not in ("w", ".lock")]


@pytest.fixture
def ssu(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder, wants exit code 2 and one line that says all of `said`, and nothing left."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, said, exit_code=2):
        before = _visible(tmp_path)
        capsys.readouterr()
        assert main.main([str(argument) for argument in arguments]) == exit_code
        error = capsys.readouterr().err.splitlines()
        assert error[-1].startswith(f"ssu {arguments[0]}: error: ")
        assert [line for line in error if "error: " in line] == error[-1:]
        assert not [line for line in error if line.startswith("Traceback")]
        for part in said:
            assert part in error[-1]
        assert _visible(tmp_path) == before, "something was left behind"

    return run


def test_the_good_things_are_good(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [
        "predict",
        str(made / "good.mp4"),
        "--checkpoint",
        str(made / "model"),
        "--out",
        "out",
        "--only",
        "json,vtt",
    ]
    assert main.main(command) == 0
    assert len(json.loads((tmp_path / "out/good/prediction.json").read_text())["frames"]) == 2
    command = ["evaluate", "--records", str(made / "data"), "--checkpoint", str(made / "model"), "--out", "m.json"]
    assert main.main(command) == 0
    assert json.loads((tmp_path / "m.json").read_text())["num_clips"] == 2


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.mp4", b"meeting at noon, bring the drum\n" * 50),
        ("empty.mp4", b""),
        ("cut.mp4", "first half"),
        ("headless.mp4", "last half"),
        ("playlist.mp4", "playlist"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(100)),
    ],
)
def test_files_that_are_no_video(made, tmp_path, ssu, name, content):
    good = (made / "good.mp4").read_bytes()
    if isinstance(content, str):
        playlist = PLAYLIST.format(made / "good.mp4").encode()
        # The index stands first in our files: cut before its end, nothing can be read.
        content = {"first half": good[:400], "last half": good[len(good) // 2 :], "playlist": playlist}[content]
    (tmp_path / name).write_bytes(content)
    ssu("predict", name, "--checkpoint", made / "model", "--out", "out", said=[name])


def test_a_missing_video_and_a_folder(made, tmp_path, ssu):
    ssu("predict", "missing.mp4", "--checkpoint", made / "model", said=["missing.mp4"])
    (tmp_path / "folder.mp4").mkdir()
    ssu("predict", "folder.mp4", "--checkpoint", made / "model", said=["folder.mp4"])


def test_one_bad_video_among_good_ones_stops_before_any_work(made, ssu):
    ssu("predict", made / "good.mp4", "missing.mp4", "--checkpoint", made / "model", said=["missing.mp4"])


def test_two_videos_of_one_name(made, tmp_path, ssu):
    shutil.copy(made / "good.mp4", tmp_path / "good.mov")
    ssu(
        "predict",
        made / "good.mp4",
        "good.mov",
        "--checkpoint",
        made / "model",
        said=["good.mp4", "good.mov", "rename"],
    )


def test_an_unknown_kind_of_result(made, ssu):
    ssu("predict", made / "good.mp4", "--only", "json,gif", said=["gif", "json, vtt, masks, heat, overlay"])


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_checkpoints_that_are_none(made, tmp_path, ssu, verb):
    command = [verb, made / "good.mp4"] if verb == "predict" else [verb, "--records", made / "data"]
    ssu(*command, "--checkpoint", "nowhere", said=["nowhere", "does not exist", "ssu train"])
    (tmp_path / "bare").mkdir()
    ssu(*command, "--checkpoint", "bare", said=["bare", "holds no model"])
    ssu(*command, "--checkpoint", made / "good.mp4", said=["good.mp4"])


def _copy_with_config(made, place, change) -> None:
    shutil.copytree(made / "model", place)
    tree = json.loads((place / folder.CONFIG).read_text())
    change(tree)
    (place / folder.CONFIG).write_text(json.dumps(tree))


def test_a_checkpoint_of_another_model_size_names_the_first_differing_shapes(made, tmp_path, ssu):
    _copy_with_config(made, tmp_path / "wider", lambda tree: tree["model"].update(width=32))
    ssu("predict", made / "good.mp4", "--checkpoint", "wider", said=["wider", "(16", "wanted", "(32"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree.update(schema_version=99), "schema_version is 99"),
        (lambda tree: tree.pop("schema_version"), "schema_version is None"),
        (lambda tree: tree["model"].update(colour=1), "unknown field 'colour'"),
        (lambda tree: tree["model"].update(width=-1), "model.width must be at least"),
    ],
)
def test_a_configuration_of_another_schema(made, tmp_path, ssu, change, said):
    _copy_with_config(made, tmp_path / "other", change)
    ssu("evaluate", "--records", made / "data", "--checkpoint", "other", said=["other", said])


def test_a_damaged_model_is_refused(made, tmp_path, ssu):
    shutil.copytree(made / "model", tmp_path / "damaged")
    weights = tmp_path / "damaged" / folder.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    ssu("predict", made / "good.mp4", "--checkpoint", "damaged", said=["damaged", folder.WEIGHTS])


def test_directories_without_records(made, root, tmp_path, ssu):
    (tmp_path / "bare").mkdir()
    evaluate = ["evaluate", "--checkpoint", made / "model", "--records"]
    train = ["train", "--config", root / "configs/nano.py", "--workdir", "w"]
    ssu(*evaluate, "bare", said=["bare", "ssu prepare"])
    ssu(*evaluate, "missing", said=["missing", "ssu prepare"])
    ssu(*evaluate, made / "data", "--split", "tset", said=["tset", "test"])
    ssu(*train, "--config.data.dir=bare", said=["bare", "ssu prepare"])
    ssu(*train, said=["--config.data.dir"])
    ssu("data", "verify", "bare", said=["bare"])
    ssu("data", "verify", "missing", said=["missing"])


def test_options_out_of_range_before_anything_is_made(root, ssu):
    train = ["train", "--config", root / "configs/nano.py", "--workdir", "w"]
    ssu(*train, "--config.train.learning_rat=1", said=["train.learning_rate"])
    ssu(*train, "--config.train.learning_rate=nan", said=["train.learning_rate must be finite"])
    ssu("prepare", "synthetic", "--out", "data", "--split", "tran", said=["tran", "train, val, test"])
    ssu("prepare", "synthetic", "--out", "data", "--num-clips", "0", said=["--num-clips"])
    ssu("prepare", "synthetic", said=["--out"])
    ssu("prepare", "synthetc", said=["synthetc"])


def test_a_split_is_not_replaced_by_accident(made, ssu):
    ssu(
        "prepare",
        "synthetic",
        "--out",
        made / "data",
        "--split",
        "test",
        "--num-clips",
        "1",
        said=["already holds the split 'test'", "overwrite it"],
    )


@pytest.fixture
def blocked(tmp_path) -> pathlib.Path:
    """A place no user can write below, root included: a file is in the way."""
    (tmp_path / "file").write_text("in the way")
    return tmp_path / "file" / "below"


def test_output_that_cannot_be_written(made, root, blocked, ssu):
    model = ["--checkpoint", made / "model"]
    ssu("predict", made / "good.mp4", *model, "--out", blocked, said=[str(blocked.parent), "choose another place"])
    ssu(
        "evaluate",
        "--records",
        made / "data",
        *model,
        "--out",
        blocked,
        said=[str(blocked.parent), "choose another place"],
    )
    ssu("prepare", "synthetic", "--out", blocked, "--num-clips", 1, said=[str(blocked.parent), "choose another place"])
    ssu("prepare", "synthetic", "--preview", blocked, "--num-clips", 1, said=[str(blocked.parent)])
    train = [
        "--config",
        root / "configs/nano.py",
        f"--config.data.dir={made / 'data'}",
        "--config.data.train_split=test",
    ]
    ssu("train", "--workdir", blocked, *train, said=[str(blocked.parent), "choose another place"])


@pytest.mark.parametrize(
    "command",
    [
        "predict {made}/good.mp4 --checkpoint {made}/model --out out",
        "predict {made}/good.mp4 --checkpoint {made}/model --out out --only json",
        "evaluate --records {made}/data --checkpoint {made}/model --out metrics.json",
        "prepare synthetic --out data --num-clips 1",
        "prepare synthetic --preview look.mp4 --num-clips 1",
    ],
)
def test_a_full_disk(made, ssu, monkeypatch, command):
    """Simulated where every writer passes: bytes find room, but never reach the disk or their final name."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("fsync", "replace", "rename"):
        monkeypatch.setattr(os, name, full)
    ssu(*command.format(made=made).split(), said=["disk is full", "free space"])
