"""A page of clips, a row each: a few of its pictures with the mask, the true mask's outline, and the sentence."""

from collections.abc import Sequence

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, UInt8

from ssu_jax.visualization import pictures

CELL_HEIGHT, CELL_WIDTH = 150, 268
TITLE_HEIGHT, CAPTION_HEIGHT = 20, 46
FONT_SIZE = 13


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 to count - 1, spread evenly, their middle ones."""
    most = min(count, most)
    return [int((place + 0.5) * count / most) for place in range(most)]


def strip(
    title: str,
    frames: Sequence[UInt8[np.ndarray, "y x 3"]],
    masks: Sequence[Bool[np.ndarray, "y x"]],
    captions: Sequence[str],
    true_masks: Sequence[Bool[np.ndarray, "y x"] | None],
) -> UInt8[np.ndarray, "height width 3"]:
    """A row: the title above, a cell for every frame. Masks are filled, true masks (None: not known) outlined."""
    cells = [_cell(*parts) for parts in zip(frames, masks, captions, true_masks, strict=True)]
    row = np.concatenate(cells, 1)
    head = pictures.text_strip(title, row.shape[1], TITLE_HEIGHT, FONT_SIZE)
    return np.concatenate([head, row])


def stacked(strips: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> UInt8[np.ndarray, "height width 3"]:
    """Rows of any length one under the other."""
    width = max(one.shape[1] for one in strips)
    return np.concatenate([np.pad(one, ((0, 4), (0, width - one.shape[1]), (0, 0))) for one in strips])


def _cell(frame: np.ndarray, mask: np.ndarray, caption: str, true: np.ndarray | None) -> np.ndarray:
    scale = min(CELL_HEIGHT / frame.shape[0], (CELL_WIDTH - 4) / frame.shape[1])
    height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
    drawn = pictures.draw_mask(pictures.resize(frame, height, width), _small(mask, height, width))
    if true is not None:
        true = _small(true, height, width) > 0
        drawn[true & ~scipy.ndimage.binary_erosion(true, iterations=2)] = pictures.TRUE_COLOUR
    above, left = (CELL_HEIGHT - height) // 2, (CELL_WIDTH - width) // 2
    around = ((above, CELL_HEIGHT - height - above), (left, CELL_WIDTH - width - left), (0, 0))
    words = pictures.text_strip(caption, CELL_WIDTH, CAPTION_HEIGHT, FONT_SIZE, pictures.PREDICTED_COLOUR)
    return np.concatenate([np.pad(drawn, around), words])


def _small(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    return pictures.resize(mask.astype(np.uint8), height, width)
