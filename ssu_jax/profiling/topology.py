"""Machines that a program can be compiled for without having them.

cpu:8            8 forced devices of this machine's processor
v5e:16x16        a TPU slice of that many chips, by the compiler in the package libtpu
"""

import importlib.util
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ssu_jax.types import UserError

GIB = 1 << 30
# Memory of one chip in GiB (Google Cloud's pages of the TPU versions); the compiler keeps a little of it for itself.
CHIPS = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}
_TORUS = {"v4": 3, "v5p": 3}  # axes of their network; the others are flat
_NAME = re.compile(r"(cpu|v4|v5e|v5p|v6e):([1-9]\d*(?:x[1-9]\d*)*)")


class Topology(NamedTuple):
    """A machine, and how hard the compiler shall try.

    kind: "cpu" or a name of CHIPS.  shape: chips along every axis of one slice.  memory: bytes of one chip, None where
    unknown.  effort: "full", or "low" (TPU: no search for the fastest form of every operation).
    """

    kind: str
    shape: tuple[int, ...]
    num_slices: int
    memory: int | None
    effort: str = "low"

    @property
    def num_chips(self) -> int:
        """Of all slices."""
        return math.prod(self.shape) * self.num_slices

    @property
    def name(self) -> str:
        """As the command line says it."""
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"


def parse(text: str, num_slices: int = 1) -> Topology:
    """Raises UserError for a name that means nothing here, with the names that do."""
    match = _NAME.fullmatch(text)
    kind, shape = (match[1], tuple(map(int, match[2].split("x")))) if match else ("", ())
    axes = 1 if kind == "cpu" else _TORUS.get(kind, 2)
    if not match or len(shape) != axes:
        raise UserError(
            f"--topology {text}: wanted cpu:N, or {', '.join(CHIPS)} with the chips along each axis: "
            f"v5e:16x16, v6e:4x4, v5p:4x8x8, v4:4x4x8"
        )
    if num_slices < 1 or (kind == "cpu" and num_slices > 1):
        raise UserError(f"--num-slices {num_slices}: wanted 1 or more, and cpu has one slice")
    return Topology(kind, shape, num_slices, CHIPS[kind] * GIB if kind in CHIPS else None)


def require(topology: Topology) -> None:
    """Raises UserError where its compiler is not installed; loads nothing."""
    if topology.kind != "cpu" and importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology {topology.name} wants the TPU compiler: pip install 'ssu_jax[tpu]' (no TPU is needed, and "
            "the process of the check alone loads it); cpu:N works without"
        )


def environment(topology: Topology, inherited: Mapping[str, str]) -> dict[str, str]:
    """What a process needs in its environment before JAX is loaded there."""
    added = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    if topology.kind == "cpu":
        flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", inherited.get("XLA_FLAGS", ""))
        added["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={topology.shape[0]}".strip()
    else:
        # No question to a cloud's metadata server, no lock against a second check, warnings to stderr, no log files.
        added |= {
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_ACCELERATOR_TYPE": "v5litepod-256",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_STDERR_LOG_LEVEL": "1",
            "TPU_LOG_DIR": "disabled",
        }
    return {**inherited, **added}


def compiler_options(topology: Topology) -> dict[str, Any] | None:
    """What `Lowered.compile` is given. None: as a run compiles."""
    return {"exec_time_optimization_effort": -1.0} if topology.kind != "cpu" and topology.effort == "low" else None


def devices(topology: Topology) -> list[Any]:
    """Devices to compile for, in a process with `environment`. Raises UserError for a shape that no machine has."""
    import jax
    from jax.experimental import topologies

    if topology.kind == "cpu":
        return jax.devices()
    options: dict[str, Any] = {"num_slices": topology.num_slices} if topology.num_slices > 1 else {}
    if topology.kind == "v4":  # else every chip would be two devices of one core
        options = {"chip_config_name": "megacore", "chips_per_host_bounds": (2, 2, 1), "wrap": (True,) * 3,
                   "num_slices": topology.num_slices}  # fmt: skip
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options)
    except Exception as error:  # the compiler's own types, different ones from version to version
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--topology {topology.name}: the TPU compiler knows no such slice: {reason}") from error
    return list(described.devices)
