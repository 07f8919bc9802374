"""Pre-training by the same loop, on clips of which nothing is known; and a run that begins with an earlier one."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import toy
import toy_encoders

from ssu_jax import checkpoint, models
from ssu_jax.config import sizes
from ssu_jax.data import records
from ssu_jax.inference import export, predictor
from ssu_jax.profiling import programs
from ssu_jax.training import initial, loop, optimizer, parts, published, state, workdir
from ssu_jax.training.logging import TIMED, read_rows
from ssu_jax.types import KNOWN_FLAGS, UserError

ENCODERS = ("visual_encoder", "audio_encoder")


@pytest.fixture(scope="module", autouse=True)
def small_encoders():
    with toy_encoders.in_place():
        yield


def unlabelled(number: int, split: str):
    clip = toy.clip(number, split)
    nothing = dict.fromkeys(KNOWN_FLAGS, np.zeros(len(clip.valid), bool))
    return dataclasses.replace(clip, captions=("",) * len(clip.valid), objects=(), category="", major="", **nothing)


def config(directory, **changes):
    made = toy.config(directory, **{"train__num_steps": 4, "eval__every_steps": 2} | changes)
    made.family = "pretraining"
    made.pretraining.width = made.pretraining.embedding_width = 8
    return made


@pytest.fixture(scope="module")
def shapes(small_encoders) -> dict:
    """Of SSUFormer's parameters."""
    made = sizes.tiny()
    return state.state_shapes(models.build(made), made, optimizer.make_optimizer(made.train)).params


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for split, count in {"train": 10, "val": 3}.items():
        clips = (unlabelled(number, split) for number in range(count))
        records.write_split(folder, split, clips, 2, classes=(), source={"made by": "a test"})
    return str(folder)


@pytest.fixture(scope="module")
def whole(data, small_encoders, tmp_path_factory):
    """A run without a break: its directory and its last state."""
    path = tmp_path_factory.mktemp("whole")
    return path, jax.device_get(loop.train(config(data), path))


def rows(path) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in TIMED}
            for row in read_rows(pathlib.Path(path) / "metrics.jsonl")]  # fmt: skip


def test_it_trains_on_clips_of_which_nothing_is_known(whole):
    path, last = whole
    assert int(last.step) == 4
    assert not (path / "tokenizer.json").exists()
    train, scored = ([row for row in rows(path) if row["kind"] == kind] for kind in ("train", "eval"))
    assert [row["step"] for row in train] == [1, 2, 3, 4]
    assert {"pairs", "pictures", "sounds", "loss"} <= train[0].keys()
    assert [row["step"] for row in scored] == [2, 4]
    for row in scored:
        np.testing.assert_allclose(row["loss"], 0.05 * row["pairs"] + row["pictures"] + row["sounds"], rtol=1e-6)
        assert row["score"] == -row["loss"]
        assert 0 <= row["recall"] <= 1
        assert row["num_clips"] == 2


def test_both_encoders_learn(whole):
    """Told by biases and scales: they do not decay, so that without a gradient none of them would move."""
    before, after = (parts.flat(checkpoint.read_weights(whole[0] / "checkpoints" / step)[1])
                     for step in ("00000003", "00000004"))  # fmt: skip
    vectors = [name for name, leaf in after.items() if parts.is_named(name, ENCODERS) and leaf.ndim == 1]
    assert {name.partition("/")[0] for name in vectors} == set(ENCODERS)
    assert all((before[name] != after[name]).any() for name in vectors)


@pytest.mark.full
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(whole, data, tmp_path):
    path, last = whole
    shutil.copytree(path, tmp_path, dirs_exist_ok=True)
    steps = tmp_path / "checkpoints"
    (steps / "00000004").rename(steps / "00000004.unsealed")
    assert not (tmp_path / "tokenizer.json").exists()
    resumed = jax.device_get(loop.train(config(data), tmp_path))
    assert rows(tmp_path) == rows(path)
    assert all(map(np.array_equal, jax.tree.leaves(resumed), jax.tree.leaves(last)))


@pytest.mark.parametrize("use", ["predict", "export", "step"])
def test_what_describes_nothing_is_refused_with_the_way_to_use_it(whole, tmp_path, use):
    place = str(whole[0])
    uses = {
        "predict": lambda: predictor.Predictor.from_checkpoint(place),
        "export": lambda: export.export(place, tmp_path / "out"),
        "step": lambda: checkpoint.load_model(whole[0] / "checkpoints" / "00000004"),
    }
    with pytest.raises(UserError, match=r"holds encoders that were pre-trained.*--config.train.init_from=") as caught:
        uses[use]()
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_profile_says_what_there_is_instead_of_a_prediction(data):
    with pytest.raises(UserError, match="predicts nothing: `ssu profile --only parameters`"):
        programs.prediction(config(data), 1)
    assert programs.training_step(config(data), 2).shapes[1].frames.shape[0] == 2


def test_ssuformer_begins_with_the_averaged_encoders_and_nothing_else(whole, shapes):
    path, last = whole
    later = sizes.tiny()
    later.train.init_from = str(path)
    found = initial.read(later, shapes)
    wanted = {name: leaf for name, leaf in parts.flat(last.ema_params).items() if parts.is_named(name, ENCODERS)}
    taken = parts.flat(found.params)
    assert taken.keys() == wanted.keys()
    assert taken.keys() == {name for name in parts.flat(shapes) if parts.is_named(name, ENCODERS)}
    assert all(np.array_equal(taken[name], wanted[name]) for name in wanted)
    assert found.tokenizer is None
    said = "\n".join(initial.remarks(shapes, found))
    assert str(path) in said
    assert "visual_encoder" in said.splitlines()[0]
    assert "text_decoder" in said.splitlines()[1]


@pytest.mark.parametrize("name", ["visual_encoder/stage_3/bias", "audio_encoder/project/bias"])
def test_other_sizes_are_refused_with_both_shapes(whole, shapes, name):
    later = sizes.tiny()
    later.train.init_from = str(whole[0])
    size = parts.flat(shapes)[name].size
    wider = parts.flat(shapes) | {name: jax.ShapeDtypeStruct((5,), np.float32)}
    with pytest.raises(UserError, match=rf"is of another size: {name} is \({size},\) there, wanted \(5,\): give model"):
        initial.read(later, parts.nested(wider))


def test_a_run_with_nothing_in_common_or_none_at_all_is_refused(whole, tmp_path):
    later = sizes.tiny()
    later.train.init_from = str(whole[0])
    with pytest.raises(UserError, match="has no parameter in common with this model"):
        initial.read(later, {"other": jax.ShapeDtypeStruct((3,), np.float32)})
    later.train.init_from = str(tmp_path / "absent")
    with pytest.raises(UserError, match="absent does not exist"):
        initial.read(later, {})
    later.train.init_from = ""
    assert initial.read(later, {}) is initial.NOTHING


def test_words_come_with_their_vocabulary():
    """Rows of the word table mean nothing under the ids of another vocabulary."""
    shipped = checkpoint.load_model()
    later = sizes.nano()
    later.train.init_from = str(checkpoint.locate(None))
    found = initial.read(later, shipped.params)
    assert parts.flat(found.params).keys() == parts.flat(shipped.params).keys()
    assert found.tokenizer.to_json() == shipped.tokenizer.to_json()
    assert initial.remarks(shipped.params, found)[1].endswith("begun afresh: nothing")


def test_the_earlier_run_comes_before_published_weights():
    both = {"visual_encoder": {"kernel": 1.0}, "clip_vision": {"kernel": 2.0}}
    weights = published.Published(both, {"visual_encoder": "aa", "clip_vision": "bb"})
    found = initial.over(weights, initial.Initial({"visual_encoder": {"kernel": 3.0}}, {}, None))
    assert found.params == {"visual_encoder": {"kernel": 3.0}, "clip_vision": {"kernel": 2.0}}
    assert found.origins == {"clip_vision": "bb"}


def test_a_run_begins_with_an_earlier_one_and_never_reads_it_again(tmp_path, monkeypatch, capsys):
    toy.install(monkeypatch.setattr)
    labelled = toy.write_records(tmp_path / "records", num_val=0)
    first = loop.train(toy.config(labelled, train__num_steps=3), tmp_path / "first")
    later = toy.config(labelled, train__num_steps=3, train__init_from=str(tmp_path / "first"), train__learning_rate=0.0)
    begun = loop.train(later, tmp_path / "second")
    assert "averaged weights of" in capsys.readouterr().out
    assert all(
        map(np.array_equal, *(jax.tree.leaves(jax.device_get(tree)) for tree in (begun.params, first.ema_params)))
    )
    origin = str(tmp_path / "first" / "checkpoints" / "00000003")
    assert json.loads((tmp_path / "second" / workdir.RUN).read_text())["published_weights"] == {
        "train.init_from": origin
    }
    shutil.rmtree(tmp_path / "first")
    later.train.init_from = "elsewhere"
    loop.train(later, tmp_path / "second")
    later.train.init_from = ""
    with pytest.raises(UserError, match=r"train.init_from is '', the run in .* was started with"):
        loop.train(later, tmp_path / "second")


def test_classes_in_another_order_are_refused(tmp_path, monkeypatch):
    toy.install(monkeypatch.setattr)
    labelled = toy.write_records(tmp_path / "records", num_val=0)
    loop.train(toy.config(labelled, train__num_steps=1), tmp_path / "first")
    later = toy.config(labelled, train__init_from=str(tmp_path / "first"))
    later.data.classes = tuple(reversed(later.data.classes))
    with pytest.raises(UserError, match="knows other data.classes, or in another order"):
        loop.train(later, tmp_path / "second")
