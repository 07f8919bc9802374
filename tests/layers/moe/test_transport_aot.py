"""What the transports send, read from programs compiled for eight processors, and for a TPU slice that is not here."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ssu_jax.profiling import topology

PROGRAM = pathlib.Path(__file__).with_name("transport_aot.py")


def compiled(place: str, *transports: str) -> dict[str, dict]:
    """By transport: `least`, the bytes of one exchange at the minimum, and `found`, kind -> [count, bytes]."""
    environment = topology.environment(topology.parse(place), os.environ)
    run = subprocess.run(
        [sys.executable, str(PROGRAM), place, *transports],
        env=environment, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr[-4000:]
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return {line["transport"]: line for line in lines}


def test_all_to_all_sends_four_exchanges_of_the_least_bytes_a_training_step():
    """There and back, forward and backward: each capacity factor x choices x own tokens x width."""
    lines = compiled("cpu:8", "all_to_all", "all_to_all:again", "all_to_all:kept")
    least = 1.25 * 2 * 256 * 256 * 4
    assert {line["least"] for line in lines.values()} == {least}
    assert lines["all_to_all"]["found"]["all-to-all"] == [4, 4 * least]
    assert set(lines["all_to_all"]["found"]) <= {"all-to-all", "all-reduce"}  # of the loss, of gradients over data
    # Computing again would exchange again: the names that are kept spare it.
    assert lines["all_to_all:again"]["found"]["all-to-all"][0] > 4
    assert lines["all_to_all:kept"]["found"]["all-to-all"] == [4, 4 * least]
    assert [line["written"] for line in lines.values()] == [4, 6, 4]


@pytest.mark.full
@pytest.mark.timeout(900)
def test_every_transport_compiles_for_a_tpu_and_sends_what_it_should():
    pytest.importorskip("libtpu", reason="the TPU compiler is not installed (extra tpu)")
    lines = compiled("v5p:2x2x2", "all_to_all", "ring", "ragged")
    least = lines["all_to_all"]["least"]
    assert least == 1.25 * 2 * 256 * 256 * 2
    assert lines["all_to_all"]["found"]["all-to-all"] == [4, 4 * least]
    assert lines["ragged"]["found"]["ragged-all-to-all"][0] == 4
    assert "all-to-all" not in lines["ring"]["found"]
    assert {"all-gather", "reduce-scatter"} <= set(lines["ring"]["found"])
