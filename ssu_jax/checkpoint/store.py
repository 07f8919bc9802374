"""The checkpoints of one working directory: saved in the background, sealed, verified, pruned.

    WORKDIR/checkpoints/
      00000500/            a sealed step: state/ (Orbax), seal.json and companions
      00001000.unsealed/   being written, or left by a run that died: never read, removed at the next start
      00000250.refused/    damaged, found at a start: kept to be looked at until two sound steps follow
      scores.json          {"500": 1.21, ...}: validation score of steps, higher is better

Kept are the two newest steps and the best one. Of several processes, which all must see the folder, each writes the
parts of the arrays that its devices hold, and process 0 does all else. The thread that writes runs no computation over
several processes: they would meet those of the training in another order elsewhere.
"""

import contextlib
import errno
import json
import logging
import pathlib
import shutil
import threading
from collections.abc import Callable
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from ssu_jax import files
from ssu_jax.checkpoint import seal, shapes
from ssu_jax.types import TrainState, UserError

FOLDER = "checkpoints"
RUN = "versions.json"  # the companion that tells seed, digest of the records and versions
NO_USABLE_CHECKPOINT = 79
PEER_LOST = 75  # exit code
_STATE = "state"
_UNSEALED, _REFUSED = ".unsealed", ".refused"
_SCORES = "scores.json"
_SEALING_SECONDS = 1200  # that processes wait for process 0; Orbax waits as long for their parts
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CheckpointStore:
    """Use as a context manager: leaving it waits for the save in progress and raises its error."""

    def __init__(self, workdir: str | pathlib.Path, report: Callable[[str], None] = print):
        """report: takes one line for people."""
        self.folder = pathlib.Path(workdir).absolute() / FOLDER
        self._report = report
        logging.getLogger("absl").addFilter(_is_not_told_by_us)
        self._checkpointer = ocp.StandardCheckpointer(multiprocessing_options=_meeting())
        self._is_first = jax.process_index() == 0
        self._newest: int | None = None  # the step that is sealed, or about to be
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, kind, *_):
        try:
            self.wait()
        except UserError:
            if kind is None:
                raise
        finally:
            self._checkpointer.close()

    def find_newest(self) -> pathlib.Path | None:
        """The folder of the newest sound step, every byte verified; None where there is no step yet.

        Says why newer steps were refused and sets them aside, then removes what unfinished saves left.
        Raises UserError (exit 79) when steps exist and none can be used; then nothing is touched. All processes call
        it together; process 0 looks.
        """
        found = self._look() if self._is_first else None
        step = int(multihost_utils.broadcast_one_to_all(np.int32(int(found.name) if found else -1)))
        self._newest = step if step >= 0 else None
        return self.folder / folder_name(step) if step >= 0 else None

    def _look(self) -> pathlib.Path | None:
        files.make_folder(self.folder)
        refused, found = [], None
        for folder in reversed(step_folders(self.folder)):
            problem = seal.problem_of(folder)
            if not problem:
                found = folder
                break
            refused.append((folder, problem))
            self._report(f"checkpoint {folder.name} refused: {problem}")
        if refused and not found:
            raise no_usable_step(self.folder, f"{refused[0][0].name} {refused[0][1]}")
        with files.writing(self.folder):
            for folder, _ in refused:
                _remove(folder.with_name(folder.name + _REFUSED))
                folder.rename(folder.with_name(folder.name + _REFUSED))
            for leftover in self.folder.glob(f"*{_UNSEALED}"):
                _remove(leftover)
                self._report(f"checkpoint {leftover.name} removed: the run ended before it was sealed")
            if found is None:
                (self.folder / _SCORES).unlink(missing_ok=True)  # of steps that someone took away
        if refused:
            self._report(f"checkpoint {found.name} is used instead")
        return found

    def save(self, step: int, state: TrainState, companions: dict[str, str]) -> None:
        """Copies the state and returns; writing, sealing and pruning go on in a thread.

        companions: file name -> text, stored beside the state. Does nothing for the step found or saved last. All
        processes call it together.
        Raises UserError when the save before this one failed or the disk has no room, and ValueError for a
        state with a value that is not finite.
        """
        self.wait()
        if step == self._newest:
            return
        if not bool(_all_finite(state)):
            raise ValueError(f"the state of step {step} holds values that are not finite: not saved")
        if self._is_first:
            self._check_room(state)
        self._newest = step
        # The next step donates these buffers, and on a CPU Orbax would read them where they lie.
        copy = flax.serialization.to_state_dict(_copied(state))
        final = self.folder / folder_name(step)
        self._thread = threading.Thread(target=self._write, args=(final, copy, companions))
        self._thread.start()

    def poll(self) -> None:
        """Raises UserError at once if the save in the background has failed."""
        if self._error is not None:
            self.wait()

    def wait(self) -> None:
        """Blocks until the last save is sealed. Raises UserError if it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error, self._newest = self._error, None, None
            raise _save_error(error, self.folder) from error

    def record_score(self, step: int, score: float) -> None:
        """Keeps the validation score of a step; the best one is never pruned."""
        if self._is_first:
            files.atomic_write(self.folder / _SCORES, json.dumps(read_scores(self.folder) | {str(step): score}))

    def has_score(self, step: int) -> bool:
        """Whether the step was evaluated. All processes call it together; process 0 looks."""
        return bool(multihost_utils.broadcast_one_to_all(np.int32(str(step) in read_scores(self.folder))))

    def _write(self, final: pathlib.Path, tree: dict, companions: dict) -> None:
        unsealed = final.with_name(final.name + _UNSEALED)
        try:
            if self._is_first:
                _remove(unsealed)
            self._checkpointer.save(unsealed / _STATE, tree)
            self._checkpointer.wait_until_finished()  # for the parts of all processes
            if self._is_first:
                self._complete(unsealed, final, companions)
            ocp.multihost.sync_global_processes(
                f"sealed {final.name}", timeout=_SEALING_SECONDS, processes=_meeting().active_processes
            )
        except BaseException as error:  # handed to the training thread, which raises it
            if self._is_first:
                with contextlib.suppress(OSError):
                    _remove(unsealed)
            self._error = error

    def _complete(self, unsealed: pathlib.Path, final: pathlib.Path, companions: dict) -> None:
        for name, text in companions.items():
            files.atomic_write(unsealed / name, text)
        seal.seal(unsealed, final.name)
        unsealed.rename(final)
        self._prune(final)

    def _prune(self, newest: pathlib.Path) -> None:
        """Removes steps that are neither among the two newest nor the best, once the newest is verified."""
        problem = seal.problem_of(newest)
        if problem:
            raise OSError(errno.EIO, f"{newest.name} {problem}, just after it was written")
        steps = step_folders(self.folder)
        keep = {*steps[-2:], best_step(self.folder)}
        for folder in steps:
            if folder not in keep:
                # First out of sight, then away: a kill in between leaves a leftover, not half a step.
                hidden = folder.with_name(folder.name + _UNSEALED)
                folder.rename(hidden)
                _remove(hidden)
        if len(steps) >= 2:
            for folder in self.folder.glob(f"*{_REFUSED}"):
                _remove(folder)

    def _check_room(self, state: TrainState) -> None:
        needed = int(1.1 * sum(leaf.nbytes for leaf in jax.tree.leaves(state))) + (1 << 20)
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise UserError(
                f"disk full: a checkpoint needs {needed / 1e6:.0f} MB, {self.folder} has {free / 1e6:.0f} MB: "
                "free some room and run the same command again"
            )


def step_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders that are named like a step, oldest first; whether they are sound is not known yet."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()),
                  key=lambda path: int(path.name))  # fmt: skip


def folder_name(step: int) -> str:
    """00000500 for step 500."""
    return f"{step:08d}"


def best_step(folder: pathlib.Path) -> pathlib.Path | None:
    """The folder of the step with the highest score; the earlier one of equals. None without scores."""
    scores = read_scores(folder)
    scored = [path for path in step_folders(folder) if str(int(path.name)) in scores]
    return max(scored, key=lambda path: scores[str(int(path.name))], default=None)


def read_scores(folder: pathlib.Path) -> dict[str, float]:
    """Validation scores by step. A lost or damaged file costs only the knowledge of which step is best."""
    try:
        scores = json.loads((folder / _SCORES).read_text())
        return {str(int(step)): float(score) for step, score in scores.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def read_state(folder: pathlib.Path, target: TrainState) -> TrainState:
    """The state of a sound step, in the structure and on the devices of `target` (arrays or their shapes).

    Raises UserError if the step holds other weights than `target`.
    """
    wanted = flax.serialization.to_state_dict(jax.tree.map(_placed_shape, target))
    with ocp.StandardCheckpointer(multiprocessing_options=_meeting()) as checkpointer:
        shapes.check(
            shapes.flat(checkpointer.metadata(folder / _STATE).item_metadata.tree), shapes.flat(wanted), folder
        )
        tree = checkpointer.restore(folder / _STATE, wanted)
    return flax.serialization.from_state_dict(target, tree)


def read_arrays(folder: pathlib.Path) -> dict[str, Any]:
    """All of a sealed step's state as a nested dict of NumPy arrays, whatever devices wrote it."""
    handler = ocp.PyTreeCheckpointHandler()
    with ocp.Checkpointer(handler) as checkpointer:
        tree = checkpointer.metadata(folder / _STATE).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(folder / _STATE, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def no_usable_step(folder: pathlib.Path, problem: str) -> UserError:
    """The error for a folder whose steps are all unusable; `problem` is that of one of them."""
    return UserError(
        f"no usable checkpoint in {folder}: {problem}: restore the folder from a copy, "
        "or train anew in another --workdir",
        NO_USABLE_CHECKPOINT,
    )


def _placed_shape(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _meeting() -> ocp.options.MultiprocessingOptions:
    """How Orbax's processes wait for each other: told which they are, by the coordinator and not by a computation."""
    return ocp.options.MultiprocessingOptions(active_processes=set(range(jax.process_count())))


def _save_error(error: BaseException, folder: pathlib.Path) -> UserError:
    text = " ".join(str(error).split())
    full = getattr(error, "errno", None) in _DISK_FULL or "No space left" in text or "RESOURCE_EXHAUSTED" in text
    if jax.process_count() > 1 and not full and isinstance(error, TimeoutError | jax.errors.JaxRuntimeError):
        return UserError(f"another process was lost while saving: {text[:300]}: start all again to resume", PEER_LOST)
    cause = "disk full" if full else text[:300] or type(error).__name__
    return UserError(f"checkpoint could not be saved in {folder}: {cause}: mend it and run the same command again")


def _is_not_told_by_us(record: logging.LogRecord) -> bool:
    """Orbax logs pages of traceback for each error that it also raises, and that the user then hears in a line."""
    return "orbax" not in pathlib.Path(record.pathname).parts


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)


@jax.jit
def _copied(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


@jax.jit
def _all_finite(tree: Any):
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
