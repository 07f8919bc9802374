"""Compiles the real training step for a machine that is not there, and says whether it fits and what it sends.

The compiling is done in a process of its own: forced devices and the TPU compiler want an environment that is set
before JAX is loaded, and what XLA complains of goes to that process's stderr. What is far too large is refused from
its shapes, before it is compiled.

    python -m ssu_jax.profiling.compile_check RESULT.json < request.json
"""

import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from typing import Any

from ssu_jax import sharding
from ssu_jax.config import Config
from ssu_jax.profiling import topology as topologies
from ssu_jax.profiling.topology import GIB, Topology
from ssu_jax.types import UserError

_REMATERIALIZED = "nvoluntary full rematerialization"
# "... Used 36.53G of 15.75G hbm. ..." or "... required for HLO temporaries (33.54G) exceeds available HBM (15.75G)."
_USED = re.compile(r"([\d.]+)([KMGT]?)\)? (?:of|exceeds available HBM) \(?([\d.]+)([KMGT]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SEARCHES = 4  # programs that `search` compiles at most
_HOPELESS = 2.0  # times the memory of a chip that the estimate from shapes must reach to be believed uncompiled


def check(
    config: Config, topology: Topology, *, memory: float | None = None, search: bool = False, effort: str = "low"
) -> dict[str, Any]:
    """A JSON-able dictionary: memory of a chip, FLOPs, collectives, rematerializations, seconds, and whether it fits.

    memory: GiB of a chip instead of the table's.  search: where it does not fit, compile smaller batches until one
    does, and say which under `searched`.  effort: of the TPU compiler, "low" or "full" as in a run. Raises UserError
    for a mesh or batch that the machine cannot be cut into, and where the compiler is not installed.
    """
    topologies.require(topology)
    limit = round(memory * GIB) if memory else topology.memory
    topology = topology._replace(memory=limit, effort=effort)
    result = judged(_compiled(config, topology), limit)
    if search and not result["fits"]:
        result["searched"] = _searched(config, topology, result["largest_batch"])
    return result


def judged(result: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """The result with `fits`, `over` (bytes of a chip too many) and `largest_batch`, an estimate.

    What does not grow with the batch is the state, the gradients of what learns and, in an estimate from shapes, the
    gathered weights; the rest is taken to be in proportion to it. 0: even the state does not fit.
    """
    usable = min(filter(None, (limit, result.pop("compiler_limit", None))), default=None)
    peak, fixed = result["peak"], result["state"] + result["gradients"] + result.pop("gathered", 0)
    over = max(0, peak - usable) if usable else 0
    result |= {"memory": usable, "fits": not over, "over": over}
    if usable:
        ways = result["batch_multiple"]
        share = max(0.0, usable - fixed) / max(1, peak - fixed)
        result["largest_batch"] = math.floor(result["batch_size"] * share / ways) * ways
    return result


def _searched(config: Config, topology: Topology, first: int) -> dict[str, Any]:
    """The first batch that compiles and fits, from the estimate downwards; 0 if none was found."""
    tried, batch_size = [], first
    while batch_size and len(tried) < _SEARCHES:
        config.train.batch_size = batch_size
        result = judged(_compiled(config, topology), topology.memory)
        tried.append(batch_size)
        if result["fits"]:
            return {"batch_size": batch_size, "peak": result["peak"], "tried": tried}
        below = batch_size - result["batch_multiple"]
        batch_size = max(0, min(result["largest_batch"], below))
    return {"batch_size": 0, "tried": tried}


def _compiled(config: Config, topology: Topology) -> dict[str, Any]:
    """What the process of its own has found."""
    request = {"config": config.to_dict(), "topology": topology._asdict()}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "result.json"
        run = subprocess.run(
            [sys.executable, "-m", "ssu_jax.profiling.compile_check", str(path)],
            input=json.dumps(request),
            env=topologies.environment(topology, os.environ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        if not path.is_file():
            last = next((line for line in reversed(run.stderr.splitlines()) if line.strip()), "no word")
            raise RuntimeError(f"the compiling process ended with {run.returncode}: {last[:500]}")
        result = json.loads(path.read_text())
    if "mistake" in result:
        raise UserError(result["mistake"])
    result["rematerializations"] = run.stderr.count(_REMATERIALIZED)
    return result


def _in_own_process(request: dict[str, Any]) -> dict[str, Any]:
    """Compiles; a mistake of the user's becomes {"mistake": line}."""
    try:
        config = Config.from_dict(request["config"])
        topology = Topology(**request["topology"])
        return compile_for(config, topology, topologies.devices(topology))
    except UserError as error:
        return {"mistake": str(error)}


def compile_for(config: Config, topology: Topology, devices: list[Any]) -> dict[str, Any]:
    """The figures of the training step on these devices, in a process with the topology's environment."""
    import jax

    from ssu_jax import models
    from ssu_jax.profiling import foreseen, memory, programs
    from ssu_jax.training.optimizer import make_optimizer
    from ssu_jax.training.state import state_shapes
    from ssu_jax.training.step import jitted_step

    config, batch_size = programs.as_trained(config), config.train.batch_size
    mesh = sharding.make_mesh(config.mesh.sizes, devices)
    sharding.check_batch_size(batch_size, mesh, config.train.grad_accumulation)
    model, optimizer = models.build(config), make_optimizer(config.train)
    state = state_shapes(model, config, optimizer, mesh)
    batch = jax.eval_shape(lambda: models.example_batch(config, batch_size))
    batch = sharding.with_shardings(batch, jax.tree.map(lambda _: sharding.batch_sharding(mesh), batch))
    result = {
        "name": config.name,
        "topology": topology.name,
        "num_slices": topology.num_slices,
        "chips": len(devices),
        "mesh": dict(mesh.shape),
        "batch_size": batch_size,
        "batch_multiple": sharding.batch_ways(mesh) * config.train.grad_accumulation,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "state": _bytes_a_chip(state),
        "gradients": _bytes_a_chip(state.ema_params),
        "effort": topology.effort if topology.is_tpu else "full",
        "versions": {name: _version(name) for name in ("ssu_jax", "jax", "jaxlib", "libtpu")},
    }  # fmt: skip
    start = time.perf_counter()
    kept = foreseen.kept_bytes(model, config, state.params, batch) // result["batch_multiple"]
    gathered = _bytes_a_chip(sharding.with_shardings(state.params, sharding.used_shardings(state.params, mesh)))
    result |= {"foreseen": result["state"] + result["gradients"] + gathered + kept, "refused_by": ""}
    if topology.memory and result["foreseen"] > _HOPELESS * topology.memory:
        return result | {"refused_by": "shapes", "peak": result["foreseen"], "gathered": gathered, "flops": None,
                         "seconds": {"foresee": time.perf_counter() - start},
                         "compiler_memory": memory.peak_of_process()}  # fmt: skip
    step = jitted_step(model, config, optimizer, mesh)
    with sharding.using(mesh):
        return result | _measured(step, state, batch, topology, time.perf_counter() - start)


def _measured(step: Any, state: Any, batch: Any, topology: Topology, foresee: float) -> dict[str, Any]:
    """FLOPs, seconds, memory and collectives of the step, compiled."""
    from ssu_jax.flops import flops_of
    from ssu_jax.profiling import memory

    start = time.perf_counter()
    flops = flops_of(step, state, batch)
    counted = time.perf_counter()
    lowered = step.lower(state, batch)
    lowered_at = time.perf_counter()
    found = _attempt(lowered, topology, _bytes_a_chip((state, batch)))
    chips = topology.num_chips
    return {
        **found,
        "flops": {"step": flops.total, "chip": flops.total // chips, "uncounted": list(flops.uncounted)},
        "seconds": {"foresee": foresee, "flops": counted - start, "lower": lowered_at - counted,
                    "compile": time.perf_counter() - lowered_at},
        "compiler_memory": memory.peak_of_process(),
    }  # fmt: skip


def _attempt(lowered: Any, topology: Topology, inputs: int) -> dict[str, Any]:
    """Memory and collectives; where the compiler itself refuses, what it says that the program would need."""
    from ssu_jax.profiling import hlo, memory

    try:
        compiled = lowered.compile(compiler_options=topologies.compiler_options(topology))
    except Exception as error:  # the compiler's own type, another one from version to version
        return refusal(str(error), inputs)
    sent = hlo.collectives(compiled.as_text())
    return {
        **memory.planned(compiled),
        "collectives": {kind: found._asdict() for kind, found in sent.items()},
    }


def refusal(told: str, inputs: int) -> dict[str, Any]:
    """What a chip would need and has, from the words of a compiler that ran out of its memory; others are an error.

    inputs: bytes that come on top where temporaries alone are told of.
    """
    used = _USED.search(told)
    if "RESOURCE_EXHAUSTED" not in told or used is None:
        raise RuntimeError(" ".join(told.split())[:500])
    needs, has = (round(float(used[i]) * _UNITS[used[i + 1].upper()]) for i in (1, 3))
    if "temporaries" in told:
        needs += inputs
    return {"peak": needs, "compiler_limit": has, "refused_by": "compiler"}


def _bytes_a_chip(shapes: Any) -> int:
    import jax

    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes)
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    found = _in_own_process(json.load(sys.stdin))
    pathlib.Path(sys.argv[1]).write_text(json.dumps(found))
