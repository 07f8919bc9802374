"""The lists of a data set, CSV and JSON from anyone: read whole, checked, every fault with its file and line."""

import csv
import hashlib
import io
import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from ssu_jax.data.datasets.layout import Item
from ssu_jax.types import UserError

SPLITS = ("train", "val", "test")


class Row(dict):
    """A line of a table by column; `where` names its file and line."""

    def __init__(self, values: dict[str, str], where: str):
        super().__init__(values)
        self.where = where

    def number(self, column: str, default: float | None = None) -> float:
        """A time or a count, finite and not negative; `default` where the cell is empty."""
        text = self.get(column, "")
        if not text and default is not None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise UserError(f"{self.where}: {column} must be a number from 0 up, got {text!r:.40}: correct it")
        return value

    def whole(self, column: str) -> int:
        """A whole number from 0 up."""
        value = self.number(column)
        if value != int(value):
            raise UserError(f"{self.where}: {column} must be a whole number, got {self[column]!r:.40}: correct it")
        return int(value)

    def one_of(self, column: str, known: Sequence[str], what: str) -> str:
        """The cell, which must be one of the known words."""
        if self[column] not in known:
            names = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            raise UserError(f"{self.where}: unknown {what} {self[column]!r:.60}, known are {names}: correct it")
        return self[column]

    def split(self, column: str = "split") -> str:
        return self.one_of(column, SPLITS, "split")


def read_csv(
    path: pathlib.Path, columns: Sequence[str], optional: Sequence[str] = (), header: bool = True
) -> list[Row]:
    """The lines of a table with these columns at least; further ones are passed over.

    header: whether the first line names the columns; without it they are the table's, in that order.
    Raises UserError: no such file, not UTF-8, a missing column (named), a line with too few or too many cells.
    """
    lines = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows, names = [], None if header else list(columns)
    try:
        for cells in lines:
            if not any(cells):
                continue
            cells = [cell.strip() for cell in cells]
            where = f"{path}, line {lines.line_num}"
            if names is None:
                names = cells
                for name in columns:
                    if name not in names:
                        raise UserError(f"{path}: lacks the column {name!r}: wanted {','.join([*columns, *optional])}")
                continue
            if len(cells) != len(names):
                raise UserError(f"{where}: {len(cells)} cells in a table of {len(names)} columns: correct the line")
            rows.append(Row(dict.fromkeys(optional, "") | dict(zip(names, cells, strict=True)), where))
    except csv.Error as error:
        raise UserError(f"{path}, line {lines.line_num}: is no CSV ({error}): correct it") from None
    if names is None:
        raise UserError(f"{path}: is empty: wanted the columns {','.join(columns)}")
    return rows


def read_json(path: pathlib.Path, kind: type) -> Any:
    """A JSON file whose outermost value is a list or a dict. Raises UserError for anything else."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON ({str(error)[:80]}): get the file again") from None
    if not isinstance(content, kind):
        raise UserError(f"{path}: wanted a JSON {kind.__name__}, got {type(content).__name__}: get the file again")
    return content


def read_text(path: pathlib.Path) -> str:
    """A text file. Raises UserError where it is missing, or not UTF-8 (with the line)."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check the folder given as --source") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: is not UTF-8: save the file as UTF-8") from None


def first_file(folder: pathlib.Path, *names: str) -> pathlib.Path:
    """The first of some names that exists below the folder, else the first: the list to miss."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def in_order(items: Iterable[Item], path: pathlib.Path) -> list[Item]:
    """Sorted by id. Raises UserError if one is there twice."""
    items = sorted(items, key=lambda item: item.id)
    for before, item in zip(items, items[1:], strict=False):
        if before.id == item.id:
            raise UserError(f"{path}: the id {item.id!r} is there twice: remove one")
    return items


def split_by_hash(key: str, val_share: float, test_share: float = 0.0) -> str:
    """The same split for the same key for ever: its sha256 falls into the share of val, of test, or of train."""
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
    if place < val_share:
        return "val"
    return "test" if place < val_share + test_share else "train"
