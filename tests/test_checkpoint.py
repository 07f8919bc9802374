import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax import checkpoint
from ssu_jax.checkpoint import CheckpointStore, seal, store
from ssu_jax.types import TrainState, UserError

STEPS = (10, 20, 30)


def state_at(step: int) -> TrainState:
    key = jax.random.key(step)
    params = {"dense": {"kernel": jax.random.normal(key, (40, 7)), "bias": jnp.full(7, 0.5)}}
    moments = ({}, {"mu": jax.tree.map(jnp.sin, params), "count": jnp.int32(step)})
    return TrainState(jnp.int32(step), params, jax.tree.map(jnp.cos, params), moments, jnp.int32(0), jnp.int32(0))


def companions(step: int) -> dict[str, str]:
    return {"versions.json": json.dumps({"seed": 0, "of": step})}


def save(workdir, *steps: int, **scores: float) -> list[str]:
    said: list[str] = []
    with CheckpointStore(workdir, said.append) as saving:
        saving.find_newest()
        for step in steps:
            saving.save(step, state_at(step), companions(step))
            saving.wait()
            if f"step_{step}" in scores:
                saving.record_score(step, scores[f"step_{step}"])
    return said


def find(workdir) -> tuple[str | None, list[str]]:
    said: list[str] = []
    with CheckpointStore(workdir, said.append) as reading:
        found = reading.find_newest()
    return found and found.name, said


def names(workdir) -> list[str]:
    return sorted(path.name for path in (workdir / "checkpoints").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    save(path, *STEPS[1:])
    return path


@pytest.fixture
def copied(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def test_what_is_read_is_what_was_saved_bit_for_bit(saved):
    assert find(saved) == ("00000030", [])
    folder = saved / "checkpoints" / "00000030"
    read = checkpoint.read_state(folder, jax.eval_shape(lambda: state_at(30)))
    assert jax.tree.structure(read) == jax.tree.structure(state_at(30))
    jax.tree.map(np.testing.assert_array_equal, read, state_at(30))
    arrays = store.read_arrays(folder)
    np.testing.assert_array_equal(arrays["ema_params"]["dense"]["kernel"], state_at(30).ema_params["dense"]["kernel"])
    assert json.loads((folder / "versions.json").read_text())["of"] == 30


def test_other_weights_than_wanted_are_refused_by_name(saved):
    other = state_at(30)
    other.params["dense"]["kernel"] = jnp.zeros((41, 7))
    with pytest.raises(UserError, match=r"params/dense/kernel is \(40, 7\), wanted \(41, 7\) \(1 differ\)"):
        checkpoint.read_state(saved / "checkpoints" / "00000030", jax.eval_shape(lambda: other))


def test_nothing_saved_is_nothing_found(tmp_path):
    assert find(tmp_path) == (None, [])


FAULTS = {
    "flip": lambda content, rng: _flipped(content, int(rng.integers(len(content) * 8))),
    "cut": lambda content, rng: content[: int(rng.integers(len(content)))],
    "delete": lambda content, rng: None,
}


def _flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_damaged_newest_step_is_refused_and_the_one_before_it_used(saved, tmp_path, kind):
    rng = np.random.default_rng(0)
    files = sorted(path for path in (saved / "checkpoints" / "00000030").rglob("*") if path.is_file())
    for number in range(10):
        run = tmp_path / str(number)
        shutil.copytree(saved, run)
        victim = run / files[rng.integers(len(files))].relative_to(saved)
        content = FAULTS[kind](victim.read_bytes(), rng)
        victim.unlink() if content is None else victim.write_bytes(content)
        found, said = find(run)
        assert found == "00000020", victim
        assert said[0].startswith("checkpoint 00000030 refused: ")
        assert victim.name in said[0], (victim, said)
        assert said[-1] == "checkpoint 00000020 is used instead"
        assert names(run) == ["00000020", "00000030.refused"]
    read = checkpoint.read_state(run / "checkpoints" / "00000020", jax.eval_shape(lambda: state_at(20)))
    jax.tree.map(np.testing.assert_array_equal, read, state_at(20))


def test_an_empty_folder_named_like_a_step_is_no_step(copied):
    (copied / "checkpoints" / "00000099").mkdir()
    found, said = find(copied)
    assert found == "00000030"
    assert "00000099 refused: is not sealed" in said[0]


def test_steps_that_changed_places_are_refused(copied):
    folder = copied / "checkpoints"
    (folder / "00000030").rename(folder / "x")
    (folder / "00000020").rename(folder / "00000030")
    found, said = find_error(copied)
    assert found == 79
    assert "00000030 was sealed as 00000020" in said


def find_error(workdir) -> tuple[int, str]:
    with pytest.raises(UserError) as caught:
        find(workdir)
    return caught.value.exit_code, str(caught.value)


def test_a_file_smuggled_into_the_state_is_refused(copied):
    (copied / "checkpoints" / "00000030" / "state" / "d" / "more").write_bytes(b"x")
    assert find(copied)[0] == "00000020"


def test_scores_written_beside_the_state_do_no_harm(copied):
    (copied / "checkpoints" / "00000030" / "metrics.json").write_text("{}")
    assert find(copied) == ("00000030", [])


def test_when_no_step_is_sound_nothing_is_touched_and_the_exit_code_is_79(copied):
    for name in names(copied):
        (copied / "checkpoints" / name / "state" / "_METADATA").write_text("{}")
    code, said = find_error(copied)
    assert code == 79
    assert "_METADATA has 2 bytes" in said
    assert names(copied) == ["00000020", "00000030"]


def test_leftovers_of_a_killed_save_are_removed_and_the_step_is_saved_anew(copied):
    left = copied / "checkpoints" / "00000040.unsealed" / "state"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"1234")
    found, said = find(copied)
    assert found == "00000030"
    assert said == ["checkpoint 00000040.unsealed removed: the run ended before it was sealed"]
    save(copied, 40)
    assert find(copied) == ("00000040", [])


def test_the_two_newest_and_the_best_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3, 4, 5, step_1=0.1, step_2=0.9, step_3=0.9, step_4=0.2)
    assert names(tmp_path) == ["00000002", "00000004", "00000005"]
    (tmp_path / "checkpoints" / "scores.json").write_text("damaged")
    save(tmp_path, 6)
    assert names(tmp_path) == ["00000005", "00000006"]


def test_refused_steps_go_when_two_sound_ones_follow(copied):
    (copied / "checkpoints" / "00000030" / "versions.json").write_text("{}")
    save(copied, 31)
    assert names(copied) == ["00000020", "00000031"]


def test_a_sealed_step_is_not_written_twice(copied):
    before = seal.problem_of(copied / "checkpoints" / "00000030"), (copied / "checkpoints" / "00000030").stat().st_mtime
    save(copied, 30)
    after = seal.problem_of(copied / "checkpoints" / "00000030"), (copied / "checkpoints" / "00000030").stat().st_mtime
    assert before == after


def test_what_is_not_finite_is_not_saved(tmp_path):
    bad = state_at(1)
    bad.params["dense"]["bias"] = bad.params["dense"]["bias"].at[3].set(jnp.nan)
    with CheckpointStore(tmp_path) as saving, pytest.raises(ValueError, match="not finite"):
        saving.save(1, bad, {})
    assert find(tmp_path) == (None, [])


def test_the_state_may_be_overwritten_as_soon_as_save_returns(tmp_path):
    change = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0, state), donate_argnums=0)
    with CheckpointStore(tmp_path) as saving:
        saving.find_newest()
        state = jax.jit(lambda: state_at(7))()
        saving.save(7, state, {})
        jax.block_until_ready(change(state))
    read = checkpoint.read_state(tmp_path / "checkpoints" / "00000007", jax.eval_shape(lambda: state_at(7)))
    jax.tree.map(np.testing.assert_array_equal, read, state_at(7))


def test_a_failed_save_is_told_at_the_next_poll_and_leaves_nothing(tmp_path, monkeypatch):
    def failing(folder, name):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(seal, "seal", failing)
    with CheckpointStore(tmp_path) as saving:
        saving.find_newest()
        saving.save(1, state_at(1), {})
        saving._thread.join()
        with pytest.raises(UserError, match="could not be saved .* Input/output error"):
            saving.poll()
        saving.poll()  # told once
    assert names(tmp_path) == []


def test_a_failed_last_save_is_told_on_leaving(tmp_path, monkeypatch):
    def full(folder, name):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(seal, "seal", full)
    with pytest.raises(UserError, match="disk full"):
        save(tmp_path, 1)
    assert names(tmp_path) == []
