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
    assert "from step 3" in train_on_four(tmp_path / "four", data)  # restores what four devices have saved
    toy.install(monkeypatch.setattr)
    loop.train(toy.config(data, train__num_steps=STEPS), tmp_path / "one")
    np.testing.assert_allclose(losses(tmp_path / "four"), losses(tmp_path / "one"), rtol=1e-5)


def train_on_four(workdir, data) -> str:
    program = pathlib.Path(__file__).with_name("toy_train.py")
    command = [sys.executable, str(program), str(workdir), data, f"train.num_steps={STEPS}"]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 x cpu" in run.stdout
    return run.stdout


def break_off(workdir) -> None:
    """Takes the last step away, as if the run had ended before it."""
    last = max((workdir / "checkpoints").glob("0*"))
    last.rename(last.with_name(last.name + ".unsealed"))


def test_one_device_needs_no_mesh():
    assert sharding.make_mesh() is None
    assert sharding.replicated(None) is None
    assert sharding.batch_sharding(None) is None
    sharding.check_batch_size(7, None)
