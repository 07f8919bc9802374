"""One run over several processes: how they join, see that they are alike, and end together.

A cluster starts the same command on every host. Which job a process belongs to is told by its environment:

    JAX_COORDINATOR_ADDRESS=host:port JAX_NUM_PROCESSES=n JAX_PROCESS_ID=i     by hand; launch/local_multiprocess.sh
    SLURM, Open MPI, Cloud TPU, GKE and other indexed jobs of Kubernetes       found by jax

Where it tells nothing the process is a run of its own, without coordinator, port or barrier. Process 0 alone writes
the working directory, which all must see; what all have to know alike it tells the others.

A process that ends while others wait for it in a collective would leave them there: for minutes by JAX's defaults,
and for ever where it is stuck. Hence the guard here, the heartbeat and the watchdog (watchdog.py).
"""

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ssu_jax.types import UserError

PEER_LOST = 75  # exit code: start again to resume
ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_BIND = "JAX_COORDINATOR_BIND_ADDRESS"  # read by jax, as is the first of the three
_SHUTDOWN_SECONDS = 30
_OF_INDEXED_JOBS = ("JOB_COMPLETION_INDEX", "TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
_OF_JOBS = (*_OF_INDEXED_JOBS, "SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "TPU_WORKER_ID")


def join(peer_timeout_seconds: int) -> None:
    """Joins the job that the environment names, if it names one. To be called before any device is touched.

    peer_timeout_seconds: a process that gives no sign of life for so long ends the whole job. The coordinator listens
    on the given address alone; one that jax has found, on all addresses unless JAX_COORDINATOR_BIND_ADDRESS says more.
    Raises UserError for an environment that tells half, and (exit code 75) where joining fails.
    """
    told = {name: os.environ.get(name, "") for name in (ADDRESS, COUNT, NUMBER)}
    by_hand = all(told.values())
    if not any(told.values()) and _is_mere_pod():
        return
    try:
        jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from Interruption
        jax.distributed.initialize(
            told[ADDRESS] or None,
            int(told[COUNT]) if told[COUNT] else None,
            int(told[NUMBER]) if told[NUMBER] else None,
            cluster_detection_method="deactivate" if by_hand else None,
            coordinator_bind_address=os.environ.get(_BIND) or told[ADDRESS] or None,
            heartbeat_timeout_seconds=peer_timeout_seconds,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except ValueError as error:
        if not any(told.values()) and "coordinator_address" not in str(error):  # which is what jax lacks by itself
            raise UserError(f"could not join the job that the environment tells of: {error}") from error
        if any(told.values()):
            shown = ", ".join(f"{name}={value!r}" for name, value in told.items())
            raise UserError(f"wanted an address host:port, a number of processes and one of them, got {shown}: {error}"
                            ) from error  # fmt: skip
    except RuntimeError as error:
        if not any(told.values()) and not any(name in os.environ for name in _OF_JOBS):
            return  # jax refuses to look for a job where it is in use already, in a notebook for one
        raise UserError(f"could not join the other processes: {_shortened(error)}", PEER_LOST) from error


def is_first() -> bool:
    """Whether this is the process that writes files and tells of the run."""
    return jax.process_index() == 0


class Silent:
    """The log of the processes that tell nothing: takes whatever is told to it."""

    def __getattr__(self, name: str) -> "Silent":
        return self

    def __call__(self, *told: Any, **more: Any) -> "Silent":
        return self


def check_alike(facts: dict[str, Any]) -> None:
    """Raises UserError on all processes unless the facts are the same on all: which one is not, and where.

    All processes call it together. facts: name -> what JSON can hold, without what a process does not know.
    """
    first, *others = map(json.loads, _gathered(json.dumps(facts)))
    for number, found in enumerate(others, 1):
        for name in first:
            if name in found and found[name] != first[name]:
                raise UserError(
                    f"process {number} of {len(others) + 1} has {name} {found[name]!r}, process 0 has "
                    f"{first[name]!r}: start all with the same command, code and records"
                )


def compiled_by_all(function: Any) -> Callable:
    """The jitted function; before its first run all processes wait until each has compiled it.

    Compiling takes one minutes longer than another on a busy host, and Gloo gives up on a group of processes whose
    first meeting takes longer than 30 s. With one process the function as it is.
    """
    if jax.process_count() == 1:
        return function
    programs = []

    def call(*args):
        if not programs:
            programs.append(function.lower(*args).compile())
            multihost_utils.sync_global_devices("compiled")
        return programs[0](*args)

    return call


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Ends this process at once when the body raises, if it is one of several; their collectives then fail too.

    To be the innermost context, so that nothing is waited for that needs the others. The exit code is that of a
    UserError, else 75. With one process errors pass.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        told = f"ssu: process {jax.process_index()} of {jax.process_count()}: error: "
        if isinstance(error, UserError):
            told += " ".join(str(error).split())
        elif isinstance(error, jax.errors.JaxRuntimeError):  # mostly a collective whose peer has gone
            told += f"{_shortened(error)}: start all again to resume"
        else:
            traceback.print_exc()
            told += f"unexpected {type(error).__name__}"
        print(told, file=sys.stderr)
        hard_exit(error.exit_code if isinstance(error, UserError) else PEER_LOST)


def hard_exit(code: int) -> None:
    """Ends the process now, without the end that waits for other processes and threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _gathered(text: str) -> list[str]:
    """The text of every process, in their order."""
    content = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(content)))
    padded = np.pad(content, (0, int(lengths.max()) - len(content)))
    rows = multihost_utils.process_allgather(padded)
    return [row[:length].tobytes().decode() for row, length in zip(rows, lengths, strict=True)]


def _is_mere_pod() -> bool:
    """A pod of Kubernetes that is no part of an indexed job nor of a TPU slice: jax takes every pod for a job's."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and not any(name in os.environ for name in _OF_INDEXED_JOBS)


def _shortened(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
