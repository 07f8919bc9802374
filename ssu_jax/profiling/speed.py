"""Time of a program: compiled apart, warm, the median of several runs."""

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from ssu_jax.profiling import memory
from ssu_jax.profiling.programs import PREDICTION, Program
from ssu_jax.tokenizer import PAD
from ssu_jax.types import UserError

LEAST_REPEATS = 3
BUDGET_SECONDS = 60.0  # after it only the least number of runs is still made


class Run(NamedTuple):
    """speed, memory: JSON-able dictionaries of one program.  compile_seconds: tracing and compiling, cache off."""

    speed: dict[str, Any]
    memory: dict[str, Any]
    compile_seconds: float


def run(program: Program, repeats: int) -> Run:
    """Compiles, allocates and times a program.

    Raises UserError where it does not fit into the memory that is free, before anything is allocated if the
    compiler's plan tells it.
    """
    arguments_size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.shapes[0]))
    memory.check_fits(arguments_size, f"the {program.title}")
    start = time.perf_counter()
    with _no_compile_cache():
        compiled = program.function.lower(*program.shapes).compile()
    compile_seconds = time.perf_counter() - start
    plan = memory.planned(compiled)
    memory.check_fits(plan["peak"], f"the {program.title} of {program.batch_size} clips")
    try:
        seconds, outputs = _timed(program, compiled, repeats)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed = f"{plan['peak'] / memory.GIB:.1f} GiB"
        raise UserError(f"the {program.title} ran out of memory (planned: {needed}): lower --batch-size") from error
    device = memory.peak_of_device()
    found = {"source": "compiler's plan" if device is None else "device", **plan, "device_peak": device}
    return Run(_speed(program, seconds, outputs), found, compile_seconds)


def _timed(program: Program, compiled: Any, repeats: int) -> tuple[list[float], Any]:
    """Seconds of each call after a first one that is not counted, and the last outputs."""
    arguments = program.make_arguments()
    seconds: list[float] = []
    for number in range(repeats + 1):
        start = time.perf_counter()
        outputs = jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start)
        if program.carries_state:
            arguments = (outputs[0], *arguments[1:])
        if number >= min(LEAST_REPEATS, repeats) and sum(seconds) > BUDGET_SECONDS:
            break
    return seconds[1:], outputs


def _speed(program: Program, seconds: list[float], outputs: Any) -> dict[str, Any]:
    median = statistics.median(seconds)
    per_sample = median / program.batch_size
    speed = {
        "frames": program.frames,
        "seconds_per_sample": per_sample,
        "frames_per_second": program.frames / per_sample,
        "fastest_seconds": min(seconds) / program.batch_size,
        "slowest_seconds": max(seconds) / program.batch_size,
        "repeats": len(seconds),
    }
    if program.name == PREDICTION and np.issubdtype(outputs[1].dtype, np.integer):  # words; T-VSL writes none
        speed["longest_sentence"] = int((np.asarray(outputs[1]) != PAD).sum(axis=-1).max())
    return speed


@contextlib.contextmanager
def _no_compile_cache() -> Iterator[None]:
    """A program that an earlier run has left on disk would make the time of compiling a time of reading."""
    before = jax.config.jax_enable_compilation_cache
    _set_compile_cache(False)
    try:
        yield
    finally:
        _set_compile_cache(before)


def _set_compile_cache(on: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", on)
    compilation_cache.reset_cache()  # whether it is used is asked once only
