"""A compile check as lines for people."""

from collections.abc import Mapping
from typing import Any

from ssu_jax.profiling.topology import GIB

MIB = 1 << 20


def table(result: Mapping[str, Any]) -> str:
    """What fits, what it costs, what is sent."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in result["mesh"].items())
    slices = f", {result['num_slices']} slices" if result["num_slices"] > 1 else ""
    seconds = result["seconds"]
    lines = [
        f"{result['name']} on {result['topology']}{slices}: {result['chips']} chips, {mesh}, "
        f"batch {result['batch_size']}, {result['parameters'] / 1e6:.1f} M parameters",
        *_memory(result),
    ]
    if result["refused_by"] != "shapes":
        flops = result["flops"]
        lines += [
            f"FLOPs         {flops['step'] / 1e12:.2f} T a step, {flops['chip'] / 1e9:.1f} G a chip",
            *_collectives(result),
            f"involuntary rematerializations: {result['rematerializations']}",
            f"lowered in {seconds['lower']:.1f} s, compiled in {seconds['compile']:.1f} s ({result['effort']} effort), "
            f"{result['compiler_memory'] / GIB:.1f} GiB of this machine's memory",
        ]
    return "\n".join([*lines, verdict(result)])


def verdict(result: Mapping[str, Any]) -> str:
    """One line: it fits, or by how much it does not and what would."""
    if result["memory"] is None:
        return "fits: no memory of a chip was stated (--memory GIB does)"
    told = f"{_gib(result['peak'])} of {_gib(result['memory'])} a chip"
    if result["fits"]:
        return f"fits: {told}"
    line = f"does not fit: {told}, {_gib(result['over'])} too much; "
    if not result["largest_batch"]:
        return line + "no batch fits: raise mesh.fsdp or mesh.expert, or take more chips"
    line += f"a batch of about {result['largest_batch']} would"
    searched = result.get("searched")
    if searched and searched["batch_size"]:
        line += f"; compiled with {searched['batch_size']}: {_gib(searched['peak'])}, fits"
    elif searched:
        line += f"; tried {', '.join(map(str, searched['tried']))}: none fits"
    return line


def _memory(result: Mapping[str, Any]) -> list[str]:
    state = f"of which state {_gib(result['state'])}"
    if result["refused_by"] == "shapes":
        return [f"a chip needs  about {_gib(result['peak'])} by the shapes of what the backward pass wants, {state}; "
                "not compiled"]  # fmt: skip
    if result["refused_by"] == "compiler":
        return [f"a chip needs  {_gib(result['peak'])} says the compiler, {state}"]
    return [
        f"arguments     {_gib(result['arguments'])} a chip, {state}",
        f"temporaries   {_gib(result['temporaries'])}",
        f"peak          {_gib(result['peak'])} (foreseen from shapes: {_gib(result['foreseen'])})",
    ]


def _collectives(result: Mapping[str, Any]) -> list[str]:
    if result["refused_by"]:
        return ["collectives   unknown, it was not compiled to the end"]
    if not result["collectives"]:
        return ["collectives   none"]
    return [
        f"{kind:<20}{found['count']:>5} a step {found['bytes'] / MIB:>10.1f} MiB a chip"
        for kind, found in result["collectives"].items()
    ]


def _gib(size: int) -> str:
    return f"{size / GIB:.3f} GiB" if size < GIB else f"{size / GIB:.2f} GiB"
