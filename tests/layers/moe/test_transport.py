"""Experts on several devices equal the dense oracle: eight forced CPU devices, in one process and in two."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

PROGRAM = pathlib.Path(__file__).with_name("transport_cases.py")


def start(*arguments: str, devices: int = 8) -> subprocess.Popen:
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_NUMPY_RANK_PROMOTION": "raise"}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def lines_of(run: subprocess.Popen, timeout: float) -> list[str]:
    try:
        output, errors = run.communicate(timeout=timeout)
    finally:
        run.kill()
    assert run.returncode == 0, output + errors[-4000:]
    return output.splitlines()


def cases_of(lines: list[str]) -> list[str]:
    """The lines of the comparisons, all of which must be fine."""
    cases = [line for line in lines if line.startswith(("ok", "WRONG"))]
    assert [line for line in cases if not line.startswith("ok")] == []
    return cases


@pytest.fixture(scope="module")
def chosen() -> list[str]:
    return lines_of(start("chosen"), timeout=280)


def test_every_transport_equals_the_oracle(chosen):
    """Loss to 1e-6, gradients to 1e-5, drops exactly; padding, empty experts, a hot one, overflow, dropless."""
    cases = cases_of(chosen)
    assert len(cases) == 22
    for word in (
        "none",
        "all_to_all",
        "ring",
        "ragged",
        "gather",
        "einsum",
        "blocks",
        "dense",
        "masked",
        "empty",
        "hot",
    ):
        assert any(f" {word} " in line for line in cases), word
    for mesh in ("(1, 1)", "(2, 4)", "(8, 1)", "(1, 8)"):
        assert any(mesh in line for line in cases), mesh
    assert sum("dropped 0 of 0" not in line for line in cases) >= 12  # the drops were really there


def test_what_a_cpu_cannot_run_is_refused_with_the_reason_in_one_line(chosen):
    ragged, einsum, dense = (line for line in chosen if line.startswith("refused"))
    assert ragged == (
        "refused: moe: transport ragged wants a TPU or GPU, XLA has no ragged-all-to-all for CPUs: "
        "take transport all_to_all"
    )
    for kind, line in (("einsum", einsum), ("dense", dense)):
        assert f"dispatch {kind} has none of: take dispatch gather" in line


def two_processes(*more: str) -> list[list[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    runs = [start("process", str(index), "2", port, *more, devices=4) for index in range(2)]
    try:
        return [cases_of(lines_of(run, timeout=280)) for run in runs]
    finally:
        for run in runs:
            run.kill()


def test_two_processes_equal_the_oracle():
    """The exchanges go from process to process by gloo, which listens on this machine alone."""
    for cases in two_processes():
        assert len(cases) == 2 * 3


@pytest.mark.full
@pytest.mark.timeout(900)
def test_two_processes_equal_the_oracle_with_every_transport():
    for cases in two_processes("all"):
        assert len(cases) == (2 + 2 * 3 + 2 + 1) * 3


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_the_whole_product_equals_the_oracle():
    """Every dispatch by every transport on every mesh, with and without a limit of slots."""
    cases = cases_of(lines_of(start("product"), timeout=3500))
    assert len(cases) == 3 * (4 * 13 * 2 + 1 + 3 + 4 * 5) + 2
