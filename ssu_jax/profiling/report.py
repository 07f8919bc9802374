"""What a model costs, told once: the dictionary that `--json` writes, and the table that is printed from it."""

import importlib.resources
import json
import os
import pathlib
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import jax

from ssu_jax import files
from ssu_jax.config import Config
from ssu_jax.profiling import memory, parameters, peers, programs, speed
from ssu_jax.profiling.costs import costs
from ssu_jax.types import UserError

PARTS = ("parameters", "flops", "speed", "memory")
Note = Callable[[str], None]


def profile(
    config: Config,
    only: Sequence[str] = PARTS,
    *,
    batch_size: int = 1,
    repeats: int = 10,
    train_step: bool = False,
    with_peers: bool = False,
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """Everything asked for, JSON-able; `note` is told what is going on.

    only: of PARTS.  batch_size: clips of one call.  repeats: timed runs, fewer where they take long.
    train_step: time and memory of a training step too.  with_peers: encoders against transformers'.
    Raises UserError for an unknown part, a batch of no clip, too little memory, a package that is absent.
    """
    _check(only, batch_size, repeats)
    if with_peers:
        peers.require()
    result: dict[str, Any] = {"name": config.name, "image_size": config.data.image_size, "batch_size": batch_size}
    if "parameters" in only:
        result["parameters"] = parameters.count(config)._asdict()
    if "flops" in only:
        result["flops"] = {"family": config.family, "max_text_tokens": config.data.max_text_tokens}
        for make in (programs.prediction, programs.training_step):
            program = make(config, batch_size)
            note(f"counting the FLOPs of the {program.title}")
            result["flops"][program.name] = costs(program)
    if {"speed", "memory"}.intersection(only):
        result |= _measured(config, only, batch_size, repeats, train_step, note)
    if with_peers:
        result["peers"] = []
        for name in peers.NAMES:
            note(f"{name}: ours and transformers' in turns")
            result["peers"].append(peers.compare(name))
    return result | {"device": _device(), "versions": _versions()}


def write(result: Mapping[str, Any], path: str | os.PathLike) -> None:
    """The result as a JSON file, whole or not at all."""
    files.atomic_write(path, json.dumps(result, indent=1) + "\n")


def _check(only: Sequence[str], batch_size: int, repeats: int) -> None:
    unknown = [part for part in only if part not in PARTS]
    if unknown or not only:
        raise UserError(f"--only: {unknown[0] if unknown else ''!r} is none of {', '.join(PARTS)}")
    for option, value in (("--batch-size", batch_size), ("--repeats", repeats)):
        if value < 1:
            raise UserError(f"{option} must be at least 1, got {value}")


def _measured(
    config: Config, only: Sequence[str], batch_size: int, repeats: int, train_step: bool, note: Note
) -> dict[str, Any]:
    runs = {}
    for make in (programs.prediction, programs.training_step) if train_step else (programs.prediction,):
        program = make(config, batch_size)
        note(f"compiling and running the {program.title} ({jax.devices()[0].device_kind})")
        runs[program.name] = speed.run(program, repeats)
    found: dict[str, Any] = {"compile_seconds": {name: run.compile_seconds for name, run in runs.items()}}
    if "speed" in only:
        found["speed"] = {name: run.speed for name, run in runs.items()}
    if "memory" in only:
        found["memory"] = {name: run.memory for name, run in runs.items()}
        found["memory"]["process_peak"] = memory.peak_of_process()
    return found


def _device() -> dict[str, Any]:
    """The paper's table says nothing of its hardware: ours does."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _versions() -> dict[str, str]:
    packages = ("ssu_jax", "jax", "jaxlib", "flax")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def published() -> dict[str, Any]:
    """The paper's own table: source, notes and rows."""
    return json.loads(importlib.resources.files("ssu_jax.profiling").joinpath("published.json").read_text("utf-8"))
