"""Experts on several devices equal the dense oracle: eight forced CPU devices, one process for all meshes."""

import os
import pathlib
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def lines() -> list[str]:
    program = pathlib.Path(__file__).with_name("transport_cases.py")
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_NUMPY_RANK_PROMOTION": "raise"}
    run = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr[-4000:]
    return run.stdout.splitlines()


def test_every_transport_equals_the_oracle(lines):
    """Loss to 1e-6, gradients to 1e-5, drops exactly; padding, empty experts, a hot one, overflow, dropless."""
    cases = [line for line in lines if not line.startswith("refused")]
    assert [line for line in cases if not line.startswith("ok")] == []
    assert len(cases) == 26
    for way in ("none", "all_to_all", "ring", "ragged"):
        assert any(f" {way} " in line for line in cases)
    assert sum("dropped 0 of 0" not in line for line in cases) >= 12  # the drops were really there


def test_ragged_is_refused_on_a_cpu_with_the_reason_in_one_line(lines):
    assert lines[0] == (
        "refused: moe: transport ragged wants a TPU or GPU, XLA has no ragged-all-to-all for CPUs: "
        "take transport all_to_all"
    )
