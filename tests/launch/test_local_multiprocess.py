"""The script that starts several processes: what it would run. That it runs them: training/test_processes.py."""

import shlex
import subprocess

import pytest


def dry_run(root, *arguments: str) -> subprocess.CompletedProcess:
    script = root / "launch" / "local_multiprocess.sh"
    return subprocess.run([script, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_every_process_knows_the_job_and_itself(root, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--mine=1")
    monkeypatch.delenv("NPROC", raising=False)
    command = ["ssu", "train", "--config", "configs/nano.py", "--workdir", "a folder", "--config.name=x"]
    run = dry_run(root, "--processes", "3", "--devices", "2", "--dry-run", "--", *command)
    assert run.returncode == 0, run.stderr
    *lines, last = run.stdout.splitlines()
    assert (len(lines), last) == (3, "wait")
    for number, line in enumerate(lines):
        env, *rest, background = shlex.split(line)
        assert (env, background) == ("env", "&")
        settings, ran = dict(word.split("=", 1) for word in rest[: -len(command)]), rest[-len(command) :]
        assert ran == command
        assert settings.pop("JAX_COORDINATOR_ADDRESS").startswith("127.0.0.1:")
        assert settings == {
            "JAX_PLATFORMS": "cpu",
            "NPROC": "6",
            "XLA_FLAGS": "--mine=1 --xla_force_host_platform_device_count=2",
            "JAX_NUM_PROCESSES": "3",
            "JAX_PROCESS_ID": str(number),
        }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "wanted a command after --"),
        (("--processes", "two", "--", "ssu"), "wanted a number after --processes, got 'two'"),
        (("--devices",), "wanted a number after --devices, got ''"),
        (("ssu", "train"), "unknown argument ssu; the command to run comes after --"),
    ],
)
def test_a_mistake_is_one_line(root, arguments, said):
    run = dry_run(root, *arguments)
    assert run.returncode == 2
    assert said in run.stderr
    assert len(run.stderr.splitlines()) == 1
