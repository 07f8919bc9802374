"""COCO run lengths in a JSON file, compressed or not, as masks: checked before anything is made of them."""

from typing import Any

import numpy as np
from jaxtyping import Bool

from ssu_jax.data import run_lengths
from ssu_jax.types import UserError


def decode(segmentation: Any, wanted: tuple[int, int], where: str) -> Bool[np.ndarray, "y x"]:
    """The mask of {"size": [rows, columns], "counts": a list of numbers or a string}.

    Raises UserError, which begins with `where`, for another size than wanted and for counts that fill none.
    """
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if size != list(wanted):
        raise UserError(
            f"{where}: a mask of the size {size!r:.40}, its frame has {list(wanted)} (rows, columns): "
            "make masks of the video's own size"
        )
    counts = segmentation.get("counts")
    try:
        if isinstance(counts, str):
            return run_lengths.decode([counts.encode("ascii")], *wanted)[0]
        runs = np.array(counts, dtype=np.int64)
        if runs.ndim != 1 or any(type(count) is not int for count in counts):
            raise ValueError("counts must be a string or a list of whole numbers")
        if (runs < 0).any() or (runs > np.prod(wanted)).any() or runs.sum() != np.prod(wanted):
            raise ValueError(f"run lengths do not make a mask of {wanted[0]} x {wanted[1]}")
        # Column after column, like the compressed ones.
        return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(wanted[::-1]).T
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: {str(error)[:120]}: make the mask again") from None
