"""The small trio and T-VSL by the same loop: one begins with the other, stops, goes on, and says what it lacks."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import toy
import toy_encoders

from ssu_jax import checkpoint
from ssu_jax.config import Config
from ssu_jax.data import records
from ssu_jax.inference import loading
from ssu_jax.profiling import programs
from ssu_jax.training import loop, parts
from ssu_jax.training.logging import TIMED, read_rows
from ssu_jax.types import UserError

CLASSES = ("bell", "dog", "horn")


@pytest.fixture(scope="module", autouse=True)
def small_encoders():
    with toy_encoders.in_place():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A clip's one object is of each class by turns."""
    folder = tmp_path_factory.mktemp("records")
    for split, count in {"train": 12, "val": 6}.items():
        clips = (toy.clip(number, split) for number in range(count))
        renamed = (renamed_to(clip, CLASSES[number % 3]) for number, clip in enumerate(clips))
        records.write_split(folder, split, renamed, 2, classes=CLASSES, source={"made by": "a test"})
    return str(folder)


def renamed_to(clip, name: str):
    import dataclasses

    objects = tuple(dataclasses.replace(item, name=name) for item in clip.objects)
    return dataclasses.replace(clip, objects=objects, category=name)


def config(directory, family: str, **changes) -> Config:
    made = toy.config(directory, **{"train__num_steps": 4, "eval__every_steps": 2} | changes)
    made.family, made.data.classes, made.tvsl.width = family, CLASSES, 8
    made.data.train_seconds = 1
    if family == "tvsl":
        made.train.freeze = ("trio",)
    return made


@pytest.fixture(scope="module")
def trio(data, small_encoders, tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("trio")
    loop.train(config(data, "trio"), path)
    return path


@pytest.fixture(scope="module")
def whole(data, trio, tmp_path_factory):
    path = tmp_path_factory.mktemp("tvsl")
    return path, jax.device_get(loop.train(config(data, "tvsl", train__init_from=str(trio)), path))


def rows(path) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in TIMED}
            for row in read_rows(pathlib.Path(path) / "metrics.jsonl")]  # fmt: skip


def test_the_trio_learns_from_words_and_is_ranked_by_its_loss(trio):
    train, scored = ([row for row in rows(trio) if row["kind"] == kind] for kind in ("train", "eval"))
    assert {"image_text", "sound_text", "sound_image"} <= train[0].keys()
    assert [row["step"] for row in scored] == [2, 4]
    assert scored[0]["score"] == -scored[0]["loss"]
    before, after = (parts.flat(checkpoint.read_weights(trio / "checkpoints" / step)[1])
                     for step in ("00000003", "00000004"))  # fmt: skip
    moved = {name for name, leaf in after.items() if leaf.ndim == 1 and (before[name] != leaf).any()}
    assert {"trio/visual_encoder/stage_1/bias", "trio/audio_encoder/project/bias", "trio/text/bias"} <= moved


def test_t_vsl_begins_with_the_trio_and_leaves_it_as_it_is(whole, trio):
    path, last = whole
    earlier = parts.flat(checkpoint.read_weights(checkpoint.locate(trio))[1])
    now = parts.flat(last.params)
    of_trio = [name for name in now if name.startswith("trio/")]
    assert of_trio
    assert all(np.array_equal(now[name], earlier[name]) for name in of_trio)
    assert not any(name.startswith("trio/") for name in parts.flat(last.ema_params))
    assert float(now["P_v/weight"]) != 1.0
    assert (path / "tokenizer.json").read_text() == (trio / "tokenizer.json").read_text()


def test_scores_of_fixed_mixtures_rank_the_steps(whole):
    scored = [row for row in rows(whole[0]) if row["kind"] == "eval"]
    assert [row["step"] for row in scored] == [2, 4]
    for row in scored:
        assert row["score"] == row["auc"]
        assert row["num_mixtures"] == 2
        assert row["num_sources"] == 4


def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(whole, data, tmp_path):
    path, last = whole
    shutil.copytree(path, tmp_path, dirs_exist_ok=True)
    steps = tmp_path / "checkpoints"
    (steps / "00000004").rename(steps / "00000004.unsealed")
    resumed = jax.device_get(loop.train(config(data, "tvsl", train__init_from="gone"), tmp_path))
    assert rows(tmp_path) == rows(path)
    assert all(map(np.array_equal, jax.tree.leaves(resumed), jax.tree.leaves(last)))


def test_the_checkpoint_comes_back_as_a_model_and_the_trio_as_none(whole, trio):
    found = loading.load(whole[0])
    assert found.config.family == "tvsl"
    assert found.tokenizer.encode("horn", 3).tolist() == loading.load(whole[0]).tokenizer.encode("horn", 3).tolist()
    with pytest.raises(UserError, match=r"holds encoders that were pre-trained.*--config.train.init_from="):
        loading.load(trio)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, "stands on trained encoders: name a run of `configs/trio.py`"),
        ({"tvsl__trio": "audioclip", "data__sample_rate": 44100}, "without tokenizer weights no word can be read"),
        ({"tvsl__trio": "audioclip"}, "hears 44,100 samples a second, got data.sample_rate 16000"),
        ({"tvsl__held_out": ("cat",)}, "tvsl.held_out names cat, which data.classes does not"),
        ({"tvsl__num_sources": 4, "train__init_from": "shipped:none"}, "no model of this name ships, wanted shipped:"),
    ],
)
def test_what_is_missing_is_said_before_anything_runs(data, tmp_path, changes, wanted):
    with pytest.raises(UserError, match=wanted):
        loop.train(config(data, "tvsl", **changes), tmp_path / "run")


def test_more_sources_than_classes_are_refused(data, trio, tmp_path):
    asked = config(data, "tvsl", train__init_from=str(trio), tvsl__num_sources=4)
    with pytest.raises(UserError, match="4 sources of different classes were asked for, of 3 classes"):
        loop.train(asked, tmp_path / "run")


def test_what_shipped_weights_a_run_began_with_is_kept(whole):
    origin = json.loads((whole[0] / "versions.json").read_text())["published_weights"]
    assert "trio" in origin["train.init_from"]


def test_a_profile_counts_mixtures_and_says_what_the_trio_has_none_of(data):
    made = config(data, "tvsl")
    program = programs.prediction(made, 3)
    heat, detection = jax.eval_shape(program.function, *program.shapes)
    assert (heat.shape, detection.shape, program.frames) == ((3, 2, 8, 16), (3, 3), 2)
    sources = programs.random_batch(made, 3).sources
    assert all(len(set(row)) == 2 for row in sources.tolist())
    assert programs.training_step(made, 3).shapes[1].pictures.shape == (3, 32, 64, 3)
    with pytest.raises(UserError, match="config.family is trio, which predicts nothing"):
        programs.prediction(config(data, "trio"), 1)
