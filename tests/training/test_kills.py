"""The loop as a program of its own: killed, asked to stop, asked twice."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import toy

from ssu_jax.checkpoint import store
from ssu_jax.training import loop
from ssu_jax.training.logging import read_rows

NUM_STEPS = 24
OPTIONS = [f"train.num_steps={NUM_STEPS}", "train.checkpoint_every_steps=3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write_records(tmp_path_factory.mktemp("records"), num_val=0)


def start(workdir, data, *options) -> subprocess.Popen:
    program = pathlib.Path(__file__).with_name("toy_train.py")
    command = [sys.executable, str(program), str(workdir), data, *OPTIONS, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def await_step(process: subprocess.Popen, step: int) -> str:
    """Reads what the run says until it has done `step` updates."""
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(f"step {step}/"):
            return said
    raise AssertionError(f"the run ended before step {step}:\n{said}")


def curve(workdir) -> list[tuple]:
    rows = read_rows(pathlib.Path(workdir) / "metrics.jsonl")
    return [(row["step"], row["loss"], tuple(row["records"])) for row in rows]


def last_step(workdir) -> tuple[str, list[bytes]]:
    """Name and every leaf of the newest checkpoint."""
    newest = max((pathlib.Path(workdir) / "checkpoints").glob("*/seal.json")).parent
    return newest.name, [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(store.read_arrays(newest))]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The same run without interruption."""
    path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        toy.install(patch.setattr)
        loop.train(toy.config(data, train__num_steps=NUM_STEPS), path)
    return path


@pytest.mark.timeout(600)
def test_kills_and_stops_change_no_bit_and_lose_no_record(whole, data, tmp_path):
    for step, workers in ((6, 0), (12, 1)):
        process = start(tmp_path, data, f"data.num_workers={workers}")
        await_step(process, step)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(tmp_path, data, "train.checkpoint_every_steps=1000")
    resumed_at = int(re.search(r"from step (\d+)", await_step(process, 16))[1])
    assert resumed_at in (3, 6, 9, 12, 15)  # whichever save was sealed when the kill came
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    stopped_at = int(re.search(r"stopped at step (\d+), saved", said)[1])
    assert last_step(tmp_path)[0] == f"{stopped_at:08d}"
    assert curve(tmp_path)[-1][0] == stopped_at
    process = start(tmp_path, data)
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    assert f"from step {stopped_at}" in said
    assert curve(tmp_path) == curve(whole)
    assert [row[0] for row in curve(whole)] == list(range(1, NUM_STEPS + 1))
    assert last_step(tmp_path) == last_step(whole)


@pytest.mark.timeout(600)
def test_a_second_request_ends_at_once(data, tmp_path):
    # Stopped between the two signals, so that the save cannot be quicker than the second one.
    process = start(tmp_path, data, "train.num_steps=100000")
    await_step(process, 5)
    os.kill(process.pid, signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    os.kill(process.pid, signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert time.monotonic() - began < 30
