"""The loop as a program of its own: killed, asked to stop, asked twice."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
import toy

from ssu_jax.training.logging import read_rows

NUM_STEPS = 60
OPTIONS = [f"train.num_steps={NUM_STEPS}", "train.checkpoint_every_steps=3"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write_records(tmp_path_factory.mktemp("records"), num_val=0)


def start(workdir, data, *options) -> subprocess.Popen:
    command = [sys.executable, str(pathlib.Path(toy.__file__)), str(workdir), data, *OPTIONS, *options]
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


def last_seal(workdir) -> tuple[str, str]:
    """Name and list of files of the newest step: crc32c of every byte of the weights."""
    newest = max((pathlib.Path(workdir) / "checkpoints").glob("*/seal.json"))
    return newest.parent.name, _weights_digest(newest.parent)


def _weights_digest(folder) -> str:
    import jax
    import numpy as np

    from ssu_jax.checkpoint import store

    leaves = jax.tree.leaves(store.read_arrays(folder))
    return " ".join(np.asarray(leaf).tobytes().hex() for leaf in leaves)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    process = start(path, data)
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    return path


def test_two_kills_change_no_bit_and_lose_no_record(whole, data, tmp_path):
    for step, workers in ((13, 0), (31, 1)):
        process = start(tmp_path, data, f"data.num_workers={workers}")
        await_step(process, step)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(tmp_path, data)
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    resumed_at = int(re.search(r"from step (\d+)", said)[1])
    assert 27 <= resumed_at <= 33
    assert curve(tmp_path) == curve(whole)
    assert [row[0] for row in curve(whole)] == list(range(1, NUM_STEPS + 1))
    assert last_seal(tmp_path) == last_seal(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_saves_the_exact_step(data, tmp_path, number):
    process = start(tmp_path, data, "train.checkpoint_every_steps=1000", "train.num_steps=100000")
    await_step(process, 5)
    process.send_signal(number)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    stopped_at = int(re.search(r"stopped at step (\d+), saved", said)[1])
    assert last_seal(tmp_path)[0] == f"{stopped_at:08d}"
    assert curve(tmp_path)[-1][0] == stopped_at


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
