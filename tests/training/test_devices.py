import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import toy

from ssu_jax import sharding
from ssu_jax.training import loop
from ssu_jax.training.logging import read_rows

STEPS = 6


def losses(workdir) -> np.ndarray:
    return np.array([row["loss"] for row in read_rows(pathlib.Path(workdir) / "metrics.jsonl")])


@pytest.mark.timeout(600)
def test_four_devices_train_as_one_within_rounding(tmp_path, monkeypatch):
    data = toy.write_records(tmp_path / "records", num_val=0)
    train_on_four(tmp_path / "four", data)
    break_off(tmp_path / "four")
    # Restores what four devices have saved whole, cut into halves.
    assert "from step 3" in train_on_four(tmp_path / "four", data, "mesh.fsdp=2")
    toy.install(monkeypatch.setattr)
    loop.train(toy.config(data, train__num_steps=STEPS), tmp_path / "one")
    np.testing.assert_allclose(losses(tmp_path / "four"), losses(tmp_path / "one"), rtol=1e-5)


def train_on_four(workdir, data, *changes: str) -> str:
    program = pathlib.Path(__file__).with_name("toy_train.py")
    command = [sys.executable, str(program), str(workdir), data, f"train.num_steps={STEPS}", *changes]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 x cpu" in run.stdout
    return run.stdout


def break_off(workdir) -> None:
    """Takes the last step away, as if the run had ended before it."""
    last = max((workdir / "checkpoints").glob("0*"))
    last.rename(last.with_name(last.name + ".unsealed"))


def run_meshes(folder, *meshes: str, family: str = "ssuformer") -> dict:
    program = pathlib.Path(__file__).with_name("mesh_runs.py")
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    command = [sys.executable, str(program), family, str(folder), *meshes]
    run = subprocess.run(
        command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, timeout=3000, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def check_equal(found: dict, one: str, last: str) -> None:
    for mesh, result in found.items():
        np.testing.assert_allclose(result["losses"], found[one]["losses"], rtol=1e-5, err_msg=mesh)
        assert result["share_held_after"] == result["share_held"]  # a step leaves the state where it lies
    np.testing.assert_allclose(found[last]["resumed"], found[last]["losses"][-1:], rtol=1e-5)
    assert found[last]["resumed_share_held"] == found[last]["share_held"]


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_the_whole_model_on_every_mesh_is_that_on_one_device(tmp_path):
    meshes = ("8,1,1,1", "2,4,1,1", "2,1,4,1", "2,2,1,2", "1,2,2,2")
    found = run_meshes(tmp_path, "1,1,1,1", *meshes)
    check_equal(found, "1,1,1,1", meshes[-1])
    assert found["8,1,1,1"]["share_held"] == 1.0
    assert found["1,2,2,2"]["share_held"] < 0.5  # vectors are whole, and a tiny model has many
    for mesh in meshes:
        np.testing.assert_allclose(found[mesh]["described"], found["1,1,1,1"]["described"], rtol=1e-5, err_msg=mesh)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("family", "bound"), [("pretraining", {"rtol": 1e-4}), ("tvsl", {"atol": 1e-4})])
def test_what_contrasts_clips_on_every_mesh_is_that_on_one_device(tmp_path, family, bound):
    """The contrast is over the clips of all devices, and in pre-training the same squares are hidden."""
    meshes = ("8,1,1,1", "2,2,1,2")
    found = run_meshes(tmp_path, "1,1,1,1", *meshes, family=family)
    check_equal(found, "1,1,1,1", meshes[-1])
    for mesh in meshes:
        np.testing.assert_allclose(found[mesh]["described"], found["1,1,1,1"]["described"], err_msg=mesh, **bound)


def test_one_device_needs_no_mesh():
    assert sharding.make_mesh() is None
    assert sharding.replicated(None) is None
    assert sharding.batch_sharding(None) is None
    sharding.check_batch_size(7, None)
