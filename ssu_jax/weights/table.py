"""The table of public weights, public.json: data, with the sha256 that every download is held against."""

import json
import pathlib
from typing import NamedTuple

from ssu_jax.types import UserError


class PublicFile(NamedTuple):
    """One file. name: what it is called in a folder given with --weights-dir."""

    name: str
    url: str
    sha256: str
    num_bytes: int


class Published(NamedTuple):
    """One line of the table.

    kind: what `ssu convert` calls it. weights: the file of the tensors. vocabulary: the file that goes with them, None
    where none does.
    """

    name: str
    kind: str
    what: str
    licence: str
    weights: PublicFile
    vocabulary: PublicFile | None = None

    @property
    def files(self) -> tuple[PublicFile, ...]:
        """All of its files."""
        return (self.weights, self.vocabulary) if self.vocabulary else (self.weights,)

    @property
    def num_bytes(self) -> int:
        """What a download takes."""
        return sum(file.num_bytes for file in self.files)


def _read() -> dict[str, Published]:
    content = json.loads(pathlib.Path(__file__).with_name("public.json").read_bytes())
    table = {}
    for name, line in content.items():
        files = {key: PublicFile(**line.pop(key)) for key in ("weights", "vocabulary") if key in line}
        table[name] = Published(name, **line, **files)
    return table


TABLE = _read()
NAMES = tuple(TABLE)


def published(name: str) -> Published:
    """The line of a name. Raises UserError for an unknown one."""
    if name not in TABLE:
        raise UserError(f"no published weights are called {name!r}: wanted one of {', '.join(TABLE)}")
    return TABLE[name]
