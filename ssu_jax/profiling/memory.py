"""How much memory a program takes, how much there is, and a word in time where it cannot fit."""

import pathlib
import resource
import sys
from typing import Any

import jax

from ssu_jax.types import UserError

GIB = 1 << 30
_CGROUP = pathlib.Path("/sys/fs/cgroup")


def planned(compiled: Any) -> dict[str, int]:
    """Bytes the compiler has planned: arguments, outputs, temporaries; `peak` is what they need together."""
    analysis = compiled.memory_analysis()
    plan = {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
    }
    # Outputs that take over the memory of arguments count once.
    return {**plan, "peak": sum(plan.values()) - analysis.alias_size_in_bytes}


def peak_of_device() -> int | None:
    """Most bytes that were in use on the device in this process so far; None where the backend keeps no count (CPU)."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def peak_of_process() -> int:
    """Most bytes of main memory that this process has held so far, libraries and compiler included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available() -> int | None:
    """Bytes that can still be had where the arrays will lie: on the device, or in main memory; None if unknown."""
    statistics = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    if jax.devices()[0].platform != "cpu":
        return None
    found = [size for size in (_free_of_machine(), _free_of_container()) if size is not None]
    return min(found) if found else None


def check_fits(needed: int, what: str) -> None:
    """Raises UserError if `needed` bytes are more than there are."""
    free = available()
    if free is not None and needed > free:
        raise UserError(
            f"{what} needs {needed / GIB:.1f} GiB and {free / GIB:.1f} GiB are free on "
            f"{jax.devices()[0].device_kind}: lower --batch-size or the size of the model, or take "
            "--only parameters,flops, which allocates nothing"
        )


def _free_of_machine() -> int | None:
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _free_of_container() -> int | None:
    """What a container's own limit leaves; None where there is none."""
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return None
    return int(limit) - int(used) if limit.isdigit() else None
