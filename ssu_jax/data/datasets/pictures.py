"""Frames and masks that a data set keeps as PNG or JPEG: measured by their header before they are decoded."""

import contextlib
import pathlib
import struct
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from ssu_jax.data import transforms
from ssu_jax.data.records import MAX_FRAME_PIXELS
from ssu_jax.types import UserError


def size_of(path: pathlib.Path) -> tuple[int, int]:
    """Rows and columns, from the header. Raises UserError: missing, no PNG or JPEG, absurdly large."""
    with _opened(path) as image:
        return image.height, image.width


def read_frames(paths: Sequence[pathlib.Path], size: int) -> tuple[UInt8[np.ndarray, "t y x 3"], tuple[int, int]]:
    """RGB frames, all of one size, reduced so that the shorter side has at most `size`; and their own size.

    Raises UserError as `size_of`, for a file cut short, and for a frame of another size than the first.
    """
    whole = size_of(paths[0])
    rows, columns = reduced(whole, size)
    frames = np.empty((len(paths), rows, columns, 3), np.uint8)
    for frame, path in zip(frames, paths, strict=True):
        with _opened(path, whole, "the first frame") as image:
            image = image.convert("RGB")
            if whole != (rows, columns):
                image = image.resize((columns, rows), Image.Resampling.BILINEAR)
            frame[:] = image
    return frames, whole


def read_mask(path: pathlib.Path, wanted: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    """Where a picture is not black (not 0, of a palette). Raises UserError as `size_of`, and for another size."""
    with _opened(path, wanted, "its frame") as image:
        if image.mode not in ("1", "P", "L", "I", "I;16"):
            image = image.convert("RGB")  # a layer of transparency says nothing
        values = np.asarray(image)
    return values != 0 if values.ndim == 2 else (values != 0).any(-1)


def read_colours(path: pathlib.Path, wanted: tuple[int, int]) -> UInt8[np.ndarray, "y x 3"]:
    """A picture whose colours mean something. Raises UserError as `read_mask`."""
    with _opened(path, wanted, "its frame") as image:
        return np.asarray(image.convert("RGB"))


def reduced(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Rows and columns with the same shape whose smaller one is at most `shorter`."""
    share = min(1.0, shorter / min(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def fit_masks(masks: Bool[np.ndarray, "m y1 x1"], frames: UInt8[np.ndarray, "t y x 3"]) -> Bool[np.ndarray, "m y x"]:
    """Masks at the size to which their frames were reduced."""
    rows, columns = frames.shape[1:3]
    return masks if masks.shape[1:] == (rows, columns) else transforms.resize_masks(masks, rows, columns)


@contextlib.contextmanager
def _opened(path: pathlib.Path, wanted: tuple[int, int] | None = None, other: str = "") -> Iterator[Image.Image]:
    """An image whose size is accepted; what its decoder raises while it is in use becomes a UserError too."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            size = (image.height, image.width)
            if size[0] * size[1] > MAX_FRAME_PIXELS:
                raise UserError(
                    f"{path}: claims {size[1]} x {size[0]} pixels, at most {MAX_FRAME_PIXELS} are read: "
                    "get the file again, or scale it down"
                )
            if wanted is not None and size != wanted:
                raise UserError(
                    f"{path}: has {size[1]} x {size[0]} pixels, {other} has {wanted[1]} x {wanted[0]}: "
                    "bring both to one size"
                )
            yield image
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: get it, or leave its clip out of the list") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: claims far more than {MAX_FRAME_PIXELS} pixels: get the file again") from None
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise UserError(f"{path}: no whole PNG or JPEG ({str(error)[:80]}): get the file again") from None
