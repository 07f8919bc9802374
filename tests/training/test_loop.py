import errno
import json
import pathlib
import types

import jax
import numpy as np
import pytest
import toy

from ssu_jax.checkpoint import store
from ssu_jax.training import loop, workdir
from ssu_jax.training import step as steps
from ssu_jax.training.interruption import Interruption
from ssu_jax.training.logging import TIMED, read_rows
from ssu_jax.types import UserError


@pytest.fixture(autouse=True)
def toy_model(monkeypatch):
    toy.install(monkeypatch.setattr)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted run: its directory and its last state."""
    path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        toy.install(patch.setattr)
        state = loop.train(toy.config(data, eval__every_steps=4, train__picture_every_steps=6), path)
    return path, jax.device_get(state)


def curve(path) -> list[dict]:
    rows = read_rows(pathlib.Path(path) / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def steps_in(path) -> list[str]:
    return sorted(folder.name for folder in (pathlib.Path(path) / "checkpoints").iterdir() if folder.is_dir())


def stop_after(monkeypatch, step: int):
    """The run sees a request to stop once `step` updates are done."""
    polls = []
    monkeypatch.setattr(loop.CheckpointStore, "poll", lambda self: polls.append(step))
    monkeypatch.setattr(Interruption, "requested", property(lambda self: len(polls) >= step))


def test_a_run_leaves_what_was_promised(whole):
    path, state = whole
    assert int(state.step) == 12
    present = {entry.name for entry in path.iterdir()}
    assert present >= {"config.json", "tokenizer.json", "versions.json", "metrics.jsonl", "tensorboard", "checkpoints"}
    versions = json.loads((path / "versions.json").read_text())
    assert versions["seed"] == 0
    assert versions["versions"]["jax"] == jax.__version__
    rows = read_rows(path / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 13))
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [4, 8, 12]
    assert {"loss", "mask", "learning_rate", "records", *TIMED} <= rows[0].keys()
    assert all(len(row["records"]) == 4 for row in rows if row["kind"] == "train")
    assert all(0 <= row["data_wait_share"] <= 1 for row in rows if row["kind"] == "train")


def test_two_newest_steps_and_the_best_are_kept(whole):
    # The toy's scores are all equal, so the first evaluated step stays the best.
    assert steps_in(whole[0]) == ["00000004", "00000009", "00000012"]


def test_tensorboard_holds_scalars_and_pictures(whole):
    from tensorboardX.proto import event_pb2

    found = {}
    for path in (whole[0] / "tensorboard").iterdir():
        for record in _events(path.read_bytes()):
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                found[value.tag] = value
    assert found["train/loss"].simple_value > 0
    assert "eval/miou" in found
    assert found["validation/0"].image.width > 4 * toy.SIZE
    assert "red bell" in found["validation/0/text_summary"].tensor.string_val[0].decode()


def _events(content: bytes):
    while content:
        length = int.from_bytes(content[:8], "little")
        yield content[12 : 12 + length]
        content = content[16 + length :]


def test_a_stopped_run_goes_on_to_the_same_bits_with_other_workers(whole, data, tmp_path, monkeypatch, capsys):
    config = toy.config(data, eval__every_steps=4, train__picture_every_steps=6)
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        loop.train(config, tmp_path)
    assert "stopped at step 7, saved" in capsys.readouterr().out
    assert steps_in(tmp_path)[-1] == "00000007"
    config.data.num_workers, config.train.checkpoint_every_steps = 1, 5
    state = jax.device_get(loop.train(config, tmp_path))
    assert "from step 7" in capsys.readouterr().out
    assert curve(tmp_path) == curve(whole[0])
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(whole[1])))


def test_an_evaluation_that_was_cut_off_is_made_up_for(whole, data, tmp_path, monkeypatch):
    config = toy.config(data, eval__every_steps=4)
    with monkeypatch.context() as patch:
        stop_after(patch, 8)  # the request arrives before the evaluation of step 8
        loop.train(config, tmp_path)
    assert [row["step"] for row in curve(tmp_path) if row["kind"] == "eval"] == [4]
    loop.train(config, tmp_path)
    assert [row["step"] for row in curve(tmp_path) if row["kind"] == "eval"] == [4, 8, 12]


def test_a_finished_run_is_not_run_again(whole, data, capsys):
    before = (whole[0] / "metrics.jsonl").read_bytes()
    loop.train(toy.config(data, eval__every_steps=4, train__picture_every_steps=6), whole[0])
    assert "done: 12 steps" in capsys.readouterr().out
    assert (whole[0] / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"train__learning_rate": 0.5}, ["train.learning_rate", "0.5", "0.0015"]),
        ({"train__seed": 3}, ["train.seed", "3", "0"]),
        ({"train__num_steps": 13}, ["train.num_steps", "13", "12"]),
        ({"model__width": 32}, ["model.width", "32", "16"]),
    ],
)
def test_another_run_in_the_same_directory_is_refused(whole, data, change, named):
    with pytest.raises(UserError) as caught:
        loop.train(toy.config(data, **change), whole[0])
    assert caught.value.exit_code == 2
    assert all(word in str(caught.value) for word in named)


def test_other_records_are_refused(whole, tmp_path):
    other = toy.write_records(tmp_path / "other", num_train=9)
    with pytest.raises(UserError, match="digest") as caught:
        loop.train(toy.config(other, eval__every_steps=4), whole[0])
    assert caught.value.exit_code == 78


def test_two_trainings_do_not_share_a_directory(data, tmp_path):
    import subprocess
    import sys

    holder = subprocess.Popen(
        [sys.executable, "-c", f"from ssu_jax.training.workdir import Workdir; import time\n"
         f"with Workdir({str(tmp_path)!r}): print('held', flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another training"):
            loop.train(toy.config(data), tmp_path)
    finally:
        holder.kill()
        holder.wait()


def test_without_a_validation_split_it_trains_and_says_so(tmp_path, capsys):
    data = toy.write_records(tmp_path / "records", num_val=0)
    state = loop.train(toy.config(data, eval__every_steps=2, train__num_steps=3), tmp_path / "run")
    assert int(state.step) == 3
    assert capsys.readouterr().out.count("not evaluated") == 1


def test_updates_that_are_not_finite_end_the_run_with_a_bundle(data, tmp_path, monkeypatch):
    def loss(outputs, batch, config):
        error, terms = toy.toy_loss(outputs, batch, config)
        return jax.numpy.where(batch.record[0] % 2 == 0, jax.numpy.nan, error), terms

    monkeypatch.setattr(steps.losses, "total_loss", loss)
    config = toy.config(data, train__num_steps=60, train__max_skipped_steps=5, train__checkpoint_every_steps=100)
    with pytest.raises(UserError) as caught:
        loop.train(config, tmp_path)
    assert caught.value.exit_code == 77
    (bundle,) = tmp_path.glob("replay-*.json")
    bundle = json.loads(bundle.read_text())
    skipped = [row for row in curve(tmp_path) if row["loss"] is None]
    assert len(bundle["skipped"]) == 5
    assert [(row["step"], row["records"]) for row in skipped] == [(s["step"], s["records"]) for s in bundle["skipped"]]
    assert bundle["seed"] == 0
    assert bundle["config"]["train"]["max_skipped_steps"] == 5
    assert steps_in(tmp_path) == []


def test_a_full_disk_is_said_before_anything_is_written(data, tmp_path, monkeypatch):
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10))
    with pytest.raises(UserError, match="disk full: a checkpoint needs .* MB"):
        loop.train(toy.config(data), tmp_path)
    assert steps_in(tmp_path) == []


def test_a_disk_that_fills_up_meanwhile_ends_the_run_and_keeps_the_last_sound_step(data, tmp_path, monkeypatch):
    real = store.seal.seal

    def full(folder, name):
        if name == "00000006":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(folder, name)

    monkeypatch.setattr(store.seal, "seal", full)
    with pytest.raises(UserError, match="disk full"):
        loop.train(toy.config(data), tmp_path)
    assert steps_in(tmp_path) == ["00000003"]
    monkeypatch.setattr(store.seal, "seal", real)
    assert int(loop.train(toy.config(data), tmp_path).step) == 12


def test_a_place_that_cannot_be_written_is_named(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        loop.train(toy.config(data), tmp_path / "file" / "run")


def test_harmless_options_are_real_options():
    from ssu_jax.config import Config
    from ssu_jax.config.options import describe

    assert {name for name, _, _ in describe(Config())} >= workdir.HARMLESS
