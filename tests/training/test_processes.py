"""Several processes as one run: `jax.distributed` over the loopback, started as launch/local_multiprocess.sh does."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import psutil
import pytest
import toy

from ssu_jax.training import processes, watchdog, workdir
from ssu_jax.training.logging import TIMED, read_rows
from ssu_jax.types import UserError

PROGRAM = pathlib.Path(__file__).with_name("toy_train.py")
ENDS_WITHIN = 10  # seconds after a process is lost
PICTURES = ("eval.every_steps=4", "train.picture_every_steps=6")
ENDLESS = ("train.num_steps=100000", "train.checkpoint_every_steps=20")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write_records(tmp_path_factory.mktemp("records"))


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                child.kill()
        process.communicate(timeout=60)


def start(root, layout: str, *arguments) -> subprocess.Popen:
    """The toy as NxM: N processes of M devices each."""
    count, devices = layout.split("x")
    script = root / "launch" / "local_multiprocess.sh"
    command = [script, "--processes", count, "--devices", devices, "--", "python", PROGRAM, *arguments]
    STARTED.append(
        subprocess.Popen(
            command, env=os.environ | {"VENV": sys.prefix}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    )
    return STARTED[-1]


def run(root, layout: str, *arguments) -> str:
    process = start(root, layout, *arguments)
    said = process.communicate(timeout=500)[0]
    assert process.returncode == 0, said
    return said


def await_step(process: subprocess.Popen, step: int) -> None:
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(f"[0] step {step}/"):
            return
    raise AssertionError(f"the run ended before step {step}:\n{said}")


def programs_of(process: subprocess.Popen) -> dict[int, psutil.Process]:
    """The processes of a run, by their number; the script's own shells have none."""
    children = psutil.Process(process.pid).children(recursive=True)
    numbers = {child: child.environ().get("JAX_PROCESS_ID") for child in children}
    return {int(number): child for child, number in numbers.items() if number}


def curve(path) -> list[dict]:
    rows = read_rows(pathlib.Path(path) / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def newest_step(path) -> int:
    return int(max((pathlib.Path(path) / "checkpoints").glob("0*/seal.json")).parent.name)


@pytest.mark.timeout(600)
def test_two_processes_train_and_evaluate_as_one_within_rounding(root, data, tmp_path):
    options = ["train.num_steps=6", *PICTURES]
    said = run(root, "2x2", tmp_path / "two", data, *options)
    assert "4 x cpu of 2 processes, from step 0" in said
    assert said.count("step 6/6  loss") == 1  # process 0 alone tells
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    alone = [sys.executable, PROGRAM, tmp_path / "one", data, *options]
    subprocess.run(alone, env=os.environ | {"XLA_FLAGS": flags}, check=True, timeout=500, capture_output=True)
    two, one = curve(tmp_path / "two"), curve(tmp_path / "one")
    assert [row.get("records") for row in two] == [row.get("records") for row in one]
    for mine, theirs in zip(two, one, strict=True):
        assert mine.keys() == theirs.keys()
        # The sums over devices run in another order: by Gloo here, in memory there.
        np.testing.assert_allclose(
            [mine[name] for name in mine if isinstance(mine[name], float)],
            [theirs[name] for name in mine if isinstance(mine[name], float)],
            rtol=1e-5,
        )
    checkpoints = [sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) for name in ("two", "one")]
    assert checkpoints[0] == checkpoints[1]


@pytest.fixture(scope="module")
def whole(root, data, tmp_path_factory):
    """The curve of an uninterrupted run on eight devices."""
    path = tmp_path_factory.mktemp("whole")
    run(root, "2x4", path, data, "train.num_steps=16", "train.batch_size=8", *PICTURES)
    return curve(path)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("options", [(), ("mesh.fsdp=4",), ("mesh.data=2", "mesh.tensor=4")])
def test_a_run_goes_on_in_other_layouts_to_the_same_bits(root, data, tmp_path, whole, options):
    changes = ["train.num_steps=16", "train.batch_size=8", *PICTURES, *options]
    reference = whole
    if options:
        run(root, "2x4", tmp_path / "whole", data, *changes)
        reference = curve(tmp_path / "whole")
    for layout, step in (("2x4", 5), ("4x2", 9), ("1x8", 13)):
        process = start(root, layout, tmp_path / "parts", data, *changes)
        await_step(process, step)
        next(iter(programs_of(process).values())).kill()
        process.communicate(timeout=100)
    run(root, "8x1", tmp_path / "parts", data, *changes)
    assert curve(tmp_path / "parts") == reference


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("layout", "victim"), [("2x2", 0), ("2x2", 1), ("4x1", 2)])
def test_a_killed_process_ends_all(root, data, tmp_path, layout, victim):
    process = start(root, layout, tmp_path, data, *ENDLESS)
    await_step(process, 50)  # at 40 the save of 20 was waited for
    programs = programs_of(process)
    began = time.monotonic()
    programs[victim].kill()
    process.communicate(timeout=100)
    assert time.monotonic() - began < ENDS_WITHIN
    assert not any(program.is_running() for program in programs.values())
    assert process.returncode != 0
    assert newest_step(tmp_path) >= 20


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("asked", [(0,), (1,), (0, 1)])
def test_a_request_to_any_process_stops_all_at_one_step(root, data, tmp_path, asked):
    process = start(root, "2x2", tmp_path, data, *ENDLESS)
    await_step(process, 25)
    programs = programs_of(process)
    for number in asked:
        programs[number].send_signal(signal.SIGTERM)
    said = process.communicate(timeout=100)[0]
    assert process.returncode == 0, said
    stopped_at = int(re.search(r"stopped at step (\d+), saved", said)[1])
    assert newest_step(tmp_path) == stopped_at == curve(tmp_path)[-1]["step"]


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_script_passes_a_request_on(root, data, tmp_path):
    process = start(root, "2x1", tmp_path, data, *ENDLESS)
    await_step(process, 25)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=100)[0]
    assert process.returncode == 0, said
    assert "saved: the same command goes on" in said


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_process_that_stands_still_ends_all_with_its_stack(root, data, tmp_path):
    process = start(root, "2x2", tmp_path, data, *ENDLESS, "train.stall_seconds=5", "1:stall=30")
    began = time.monotonic()
    said = process.communicate(timeout=300)[0]
    assert process.returncode in (watchdog.STALLED, processes.PEER_LOST), said
    assert "no step was finished for 5 s" in said
    assert re.search(r"^\[1\] .*toy_train.py.* in stalling", said, re.MULTILINE), said
    assert time.monotonic() - began < 120


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_processes_that_differ_are_refused_by_name(root, data, tmp_path):
    process = start(root, "2x1", tmp_path, data, "1:train.seed=3")
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 2
    assert "process 1 of 2 has train.seed 3, process 0 has 0: start all with the same" in said


@pytest.fixture
def exits(monkeypatch) -> list[int]:
    """The codes with which a watchdog has ended this process."""
    codes = []
    monkeypatch.setattr(watchdog, "hard_exit", codes.append)
    monkeypatch.setattr(watchdog, "_TICK_SECONDS", 0.05)
    return codes


def test_the_watchdog_ends_what_stands_still_and_says_where(exits, capfd):
    with watchdog.Watchdog(1, 1000) as watch:
        time.sleep(1.5)
        assert not exits  # the long limit holds at first
        watch.alive()
        deadline = time.monotonic() + 60
        while not exits and time.monotonic() < deadline:
            time.sleep(0.05)
    assert set(exits) == {watchdog.STALLED}
    said = capfd.readouterr().err
    assert "no step was finished for 1 s" in said
    assert "in test_the_watchdog_ends_what_stands_still" in said


def test_a_limit_of_nothing_never_ends(exits):
    with watchdog.Watchdog(0, 0):
        time.sleep(0.5)
    assert not exits


def test_what_differs_is_named(monkeypatch):
    monkeypatch.setattr(processes, "_gathered", lambda text: [text, text, text.replace('"jax": "1"', '"jax": "2"')])
    processes.check_alike({"train.seed": 0})
    with pytest.raises(UserError, match="process 2 of 3 has jax '2', process 0 has '1'"):
        processes.check_alike({"train.seed": 0, "jax": "1"})


def test_options_records_and_versions_must_be_alike(data):
    facts = workdir.facts(toy.config(data), "digest")
    assert {"train.seed", "mesh.fsdp", "jax", "git_commit", "data_digest", "val_manifest_digest"} <= facts.keys()
    assert facts == workdir.facts(toy.config(data, data__num_workers=3), "digest")
    assert facts != workdir.facts(toy.config(data, train__learning_rate=0.5), "digest")


def test_one_process_is_alike_and_passes_errors_on():
    processes.check_alike({"seed": 0})
    with pytest.raises(KeyError), processes.guard():
        raise KeyError


@pytest.fixture
def joined(monkeypatch):
    """What jax is asked to join with."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *told, **more: calls.append((*told, more)))
    for name in (
        processes.ADDRESS,
        processes.COUNT,
        processes.NUMBER,
        "KUBERNETES_SERVICE_HOST",
        "TPU_WORKER_HOSTNAMES",
    ):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_the_environment_tells_which_job(joined, monkeypatch):
    monkeypatch.setenv(processes.ADDRESS, "10.0.0.1:1234")
    monkeypatch.setenv(processes.COUNT, "4")
    monkeypatch.setenv(processes.NUMBER, "3")
    processes.join(7)
    address, count, number, more = joined[0]
    assert (address, count, number) == ("10.0.0.1:1234", 4, 3)
    assert more["coordinator_bind_address"] == "10.0.0.1:1234"  # not every interface
    assert more["heartbeat_timeout_seconds"] == 7


def test_a_pod_that_is_no_job_is_alone(joined, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    processes.join(7)
    assert not joined
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    processes.join(7)
    assert joined[0][:3] == (None, None, None)  # jax finds them


def test_where_jax_is_in_use_already_only_a_job_is_missed(joined, monkeypatch):
    def initialize(*told, **more):
        raise RuntimeError("jax.distributed.initialize() must be called before any JAX calls")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    processes.join(7)  # a notebook: nothing told it of a job
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with pytest.raises(UserError, match="could not join the other processes") as error:
        processes.join(7)
    assert error.value.exit_code == processes.PEER_LOST


def test_without_a_job_nothing_is_joined_and_half_a_job_is_refused(joined, monkeypatch):
    def initialize(*told, **more):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    processes.join(7)
    monkeypatch.setenv(processes.NUMBER, "3")
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS='', JAX_NUM_PROCESSES='', JAX_PROCESS_ID='3'"):
        processes.join(7)
