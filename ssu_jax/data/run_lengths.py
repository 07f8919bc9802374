"""Masks <-> pycocotools' compressed run lengths, many masks at once.

pycocotools writes them. It does not read them here: it trusts its input, and run lengths that do not fit the mask
make it write past its buffer and abort (2.0.11). A mask column after column is runs of 0, 1, 0, 1, ... pixels.
From the fourth on a run is stored as the difference from the last but one. A number is letters of five
bits, lowest first, each "0" + bits, + 32 while more follow; bit 4 of the last letter is the sign.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco

MAX_LETTERS = 7  # of one number: 35 bits, more than any mask has pixels


def encode(masks: Bool[np.ndarray, "masks y x"]) -> list[bytes]:
    """The compressed counts of each mask."""
    # pycocotools wants [y, x, masks] in Fortran order.
    return [item["counts"] for item in coco.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))]


def decode(counts: Sequence[bytes], rows: int, columns: int) -> Bool[np.ndarray, "masks y x"]:
    """The inverse of `encode`. Raises ValueError if some counts are no mask of rows x columns."""
    if not counts:
        return np.zeros((0, rows, columns), bool)
    runs, starts = _numbers(counts)
    stops = np.append(starts[1:], len(runs))
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        for first in (start + 1, start + 2):
            np.cumsum(runs[first:stop:2], out=runs[first:stop:2])
    if (runs < 0).any() or (np.add.reduceat(runs, starts) != rows * columns).any():
        raise ValueError(f"run lengths do not make masks of {rows} x {columns}")
    ones = (np.arange(len(runs)) - np.repeat(starts, stops - starts)) % 2 == 1
    return np.repeat(ones, runs).reshape(len(counts), columns, rows).transpose(0, 2, 1)


def _numbers(counts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The stored numbers of all masks, int64, and the place of each mask's first one."""
    lengths = np.array([len(item) for item in counts])
    letters = np.frombuffer(b"".join(counts), np.uint8).astype(np.int64) - ord("0")
    is_last = letters < 32
    mask_ends = np.cumsum(lengths)
    if (lengths == 0).any() or (letters < 0).any() or (letters > 63).any() or not is_last[mask_ends - 1].all():
        raise ValueError("run lengths are not whole numbers")
    ends = np.flatnonzero(is_last) + 1
    begins = np.append(0, ends[:-1])
    if (ends - begins > MAX_LETTERS).any():
        raise ValueError("a run length is larger than any mask")
    shifts = 5 * (np.arange(len(letters)) - np.repeat(begins, ends - begins))
    values = np.add.reduceat((letters & 31) << shifts, begins)
    values -= (letters[ends - 1] >> 4 & 1) << 5 * (ends - begins)
    return values, np.searchsorted(begins, mask_ends - lengths)
