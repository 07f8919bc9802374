"""What the layout of every data set answers: which clips there are and of which files, and one of them read."""

import abc
import dataclasses
import pathlib
from typing import Any, ClassVar

from ssu_jax.types import Clip


@dataclasses.dataclass(frozen=True)
class Item:
    """A clip before it is read; small, and picklable for other processes.

    id:    unique in its set, the id of the clip.
    files: all that `Layout.load` opens for it.
    facts: what else the layout knows of it (seconds, classes, boxes).
    """

    id: str
    split: str
    files: tuple[pathlib.Path, ...]
    facts: Any = None


@dataclasses.dataclass(frozen=True)
class Reading:
    """How clips are read. frame_size: pixels of the shorter side, larger frames are reduced; sample_rate: Hz."""

    frame_size: int = 384
    sample_rate: int = 16000


class Layout(abc.ABC):
    """A data set below one folder, as it is distributed; picklable."""

    name: ClassVar[str]  # of the verb: ssu prepare NAME
    title: ClassVar[str]  # one line for --help
    seconds: ClassVar[int] = 10  # of a clip, to estimate what its records take

    def __init__(self, source: pathlib.Path, reading: Reading = Reading()):  # noqa: B008 (frozen)
        self.source, self.reading = source, reading

    @property
    @abc.abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The class names of the whole set, in label order."""

    @abc.abstractmethod
    def items(self) -> list[Item]:
        """Every clip, sorted by id. Raises UserError where a list (CSV, JSON) is missing, malformed or names a path
        that leaves the folder, or an id twice; the clips' own files are not looked at.
        """

    @abc.abstractmethod
    def load(self, item: Item) -> Clip:
        """The clip. Raises UserError that names the file and, where it can, the second."""

    @abc.abstractmethod
    def faults(self, item: Item) -> list[str]:
        """What is missing or unreadable of an item, one line a file, without decoding it whole."""

    @classmethod
    @abc.abstractmethod
    def write_example(cls, folder: pathlib.Path, num_clips: int = 6, seed: int = 0) -> None:
        """A small folder of exactly this layout, made from the built-in world: to try the verb, and for tests."""
