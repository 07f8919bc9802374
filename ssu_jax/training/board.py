"""TensorBoard files, written in the calling thread.

tensorboardX's SummaryWriter hands events to a thread that dies at a full disk; its queue then blocks the
training for ever. Here an error is raised where it happens. Formats and protocol buffers are tensorboardX's.
"""

import os
import pathlib
import time

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

from ssu_jax import files


class Board:
    """An event file of one start. What earlier starts wrote beyond `start_step` is hidden by TensorBoard."""

    def __init__(self, folder: pathlib.Path, start_step: int):
        files.make_folder(folder)
        self._folder = folder
        # The process in the name: two starts within a second must not share a file.
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{start_step}")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(step=start_step + 1, session_log=start))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Numbers by name, one point of each curve."""
        for name, value in values.items():
            self._write(event_pb2.Event(step=step, summary=summary.scalar(name, value)))
        self.flush()

    def picture(self, step: int, name: str, picture: UInt8[np.ndarray, "y x 3"]) -> None:
        """A picture of the step."""
        self._write(event_pb2.Event(step=step, summary=summary.image(name, picture, dataformats="HWC")))

    def text(self, step: int, name: str, markdown: str) -> None:
        """A text of the step, Markdown."""
        self._write(event_pb2.Event(step=step, summary=summary.text(name, markdown)))

    def flush(self) -> None:
        """Makes what was written visible. Raises UserError if the disk is full."""
        with files.writing(self._folder):
            self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        with files.writing(self._folder):
            self._writer.close()

    def _write(self, event: event_pb2.Event) -> None:
        event.wall_time = time.time()
        with files.writing(self._folder):
            self._writer.write_event(event)
