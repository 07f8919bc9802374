"""Machines that a program can be compiled for without having them.

cpu:8            8 forced devices of this machine's processor
v5e:16x16        a TPU slice of that many chips, by the compiler in the package libtpu
h200:32x8        32 machines of 8 GPUs each, by the compiler in JAX's CUDA plugin
"""

import importlib.util
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ssu_jax.profiling import gpus
from ssu_jax.types import UserError

GIB = 1 << 30
# Memory of one chip in GiB (Google Cloud's pages of the TPU versions); the compiler keeps a little of it for itself.
CHIPS = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}
_TORUS = {"v4": 3, "v5p": 3}  # axes of their network; the others are flat
_NAME = re.compile(rf"(cpu|{'|'.join((*CHIPS, *gpus.NAMES))}):([1-9]\d*(?:x[1-9]\d*)*)")
_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


class Topology(NamedTuple):
    """A machine, and how hard the compiler shall try.

    kind: "cpu", a name of CHIPS or one of gpus.NAMES.  shape: chips along every axis of one slice; GPUs: machines, and
    chips of each.  memory: bytes of one chip, None where unknown.  effort: "full", or "low" (TPU: no search for the
    fastest form of every operation).
    """

    kind: str
    shape: tuple[int, ...]
    num_slices: int
    memory: int | None
    effort: str = "low"

    @property
    def is_tpu(self) -> bool:
        """Compiled by libtpu."""
        return self.kind in CHIPS

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
            f"--topology {text}: wanted cpu:N, or {', '.join(CHIPS)} with the chips along each axis (v5e:16x16, "
            f"v5p:4x8x8), or {', '.join(gpus.NAMES)} with machines and GPUs of each (h200:4x8)"
        )
    if num_slices < 1 or (kind not in CHIPS and num_slices > 1):
        raise UserError(f"--num-slices {num_slices}: wanted 1 or more, and {kind} has one slice")
    memory = CHIPS[kind] * GIB if kind in CHIPS else gpus.memory_of(kind) if kind in gpus.NAMES else None
    return Topology(kind, shape, num_slices, memory)


def require(topology: Topology) -> None:
    """Raises UserError where its compiler is not installed; loads nothing."""
    if topology.kind in gpus.NAMES and not any(map(importlib.util.find_spec, _PLUGINS)):
        raise UserError(
            f"--topology {topology.name} wants JAX's CUDA compiler: pip install 'ssu_jax[cuda12]' (no GPU is needed); "
            "cpu:N works without"
        )
    if topology.is_tpu and importlib.util.find_spec("libtpu") is None:
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
    elif not topology.is_tpu:
        added |= {"XLA_FLAGS": f"{inherited.get('XLA_FLAGS', '')} {gpus.FLAGS}".strip(), "CUDA_VISIBLE_DEVICES": "-1"}
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
    return {"exec_time_optimization_effort": -1.0} if topology.is_tpu and topology.effort == "low" else None


def devices(topology: Topology) -> list[Any]:
    """Devices to compile for, in a process with `environment`. Raises UserError for a shape that no machine has."""
    import jax
    from jax.experimental import topologies

    if topology.kind == "cpu":
        return jax.devices()
    if topology.kind in gpus.NAMES:
        described = topologies.get_topology_desc(
            platform="cuda",
            target_config=gpus.description_of(topology.kind),
            topology="x".join(map(str, (*topology.shape, 1))),
        )
        return list(described.devices)
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
