"""What a run tells: JSON lines, TensorBoard, and a progress bar or plain lines.

    metrics.jsonl   {"kind": "train" | "eval", "step": n, "loss": ..., ...}, one object a line, flushed
    tensorboard/    the same numbers, with pictures of masks, sentences and the load of the experts

A row of step n describes the n-th update. Values that are not finite become null. Of every expert layer it holds
router/block_0/load (the share of the assignments that chose each expert, a list), max_load (the largest over the mean),
entropy (nats, of a token's probabilities) and dropped_share, all of the whole batch, gradient slices weighed by tokens.
data_wait_share is the share of the time since the row before in which the devices stood idle for want of a batch, seen
from the first process; the first batch of a start, for which the readers start up, does not count.
"""

import json
import math
import pathlib
import sys
import time
from typing import Any

import numpy as np
import tqdm

from ssu_jax import files
from ssu_jax.training import routing_log
from ssu_jax.training.board import Board
from ssu_jax.visualization import routing

METRICS_FILE = "metrics.jsonl"
_TOLD = ("miou", "f_score", "exact_match", "bleu_4", "meteor", "loss", "recall")  # scores on the line for people
TIMED = ("clips_per_second", "data_wait_share")  # of a row: what the same run gives otherwise each time
_TOLD_WAIT = 0.05  # share of the time from which the wait for data is told
_DIGITS = 5  # of numbers in lists: a layer has hundreds of experts


class MetricsLog:
    """Rows of steps after `start_step` are taken off first: they are run again.

    So are the scores of `start_step` itself unless its evaluation was completed (`is_scored`).
    """

    def __init__(self, workdir: pathlib.Path, start_step: int, num_steps: int, is_scored: bool):
        path = workdir / METRICS_FILE
        rows = [row for row in read_rows(path) if (row["step"], row["kind"] == "eval") <= (start_step, is_scored)]
        files.atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        self.board = Board(workdir / "tensorboard", start_step)
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(total=num_steps, initial=start_step, unit="step", dynamic_ncols=True)
        self._num_steps = num_steps
        self._watch = routing_log.CollapseWatch()
        self.start_clock(start_step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()
        self._file.close()
        self.board.close()

    def start_clock(self, step: int) -> None:
        """Speed is counted from here: called after compiling and after evaluating."""
        self._window = (step, time.monotonic())
        self._waited_seconds = 0.0

    def waited(self, seconds: float) -> None:
        """So long did the devices stand idle until the next batch was there."""
        self._waited_seconds += seconds

    def train(self, step: int, values: dict[str, Any], batch_size: int, records: list[int]) -> None:
        """A row of training, with the speed since the row before and the record numbers of the batch."""
        steps, seconds = step - self._window[0], time.monotonic() - self._window[1]
        rate, wait_share = steps / max(seconds, 1e-9), self._waited_seconds / max(seconds, 1e-9)
        router = values.get("router", {})
        plain = {name: value for name, value in values.items() if name != "router"} | routing_log.rows(router)
        timed = dict(zip(TIMED, (rate * batch_size, wait_share), strict=True))
        self._row("train", step, plain | timed, records=records)
        shown = f"loss {values['loss']:.4f}  lr {values['learning_rate']:.2e}  {rate * batch_size:.1f} clips/s"
        if wait_share > _TOLD_WAIT:
            shown += f"  waits {wait_share:.0%} for data: raise config.data.num_workers"
        if self._bar is None:
            left = time.strftime("%H:%M:%S", time.gmtime((self._num_steps - step) / max(rate, 1e-9)))
            self.line(f"step {step}/{self._num_steps}  {shown}  {left} left")
        else:
            self._bar.set_postfix_str(shown, refresh=False)
        if router:
            for line in self._watch.lines(step, router["load"]):
                self.line(line)
        self.start_clock(step)

    def draw_load(self, step: int) -> None:
        """A picture of the load of every expert in all logged steps so far; nothing without experts."""
        rows = read_rows(pathlib.Path(self._file.name))
        told = [(row["step"], load) for row in rows if (load := routing_log.load_in(row)) is not None]
        if told:
            steps, loads = zip(*told, strict=True)
            self.board.picture(step, "router/load", routing.load_over_time(steps, np.stack(loads)))
            self.board.flush()
            self.start_clock(step)

    def evaluation(self, step: int, values: dict[str, Any], score: float) -> None:
        """A row of validation scores."""
        self._row("eval", step, values | {"score": score})
        numbers = [f"{name} {values[name]:.3f}" for name in _TOLD if values.get(name) is not None]
        self.line(f"step {step}/{self._num_steps}  validation: {'  '.join(numbers)}")

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def line(self, text: str) -> None:
        """A line for people, above the bar where there is one."""
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.write(text)

    def _row(self, kind: str, step: int, values: dict[str, Any], **extra: Any) -> None:
        numbers = {name: _plain(value) for name, value in values.items()}
        with files.writing(self._file.name):
            self._file.write(json.dumps({"kind": kind, "step": step, **numbers, **extra}) + "\n")
            self._file.flush()
        curves = {f"{kind}/{name}": value for name, value in numbers.items() if isinstance(value, (int, float))}
        self.board.scalars(step, curves)


def read_rows(path: pathlib.Path) -> list[dict]:
    """The rows of metrics.jsonl; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _plain(value: Any) -> Any:
    """A Python number or a list of them, None for no number and for one that JSON has no word for."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if np.ndim(value):
        return [None if (number := _plain(part)) is None else round(number, _DIGITS) for part in value]
    number = np.asarray(value).item()
    return number if math.isfinite(number) else None
