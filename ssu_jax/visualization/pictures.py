"""Still pictures: a mask on a frame, a sentence in a strip, a level meter, a contact sheet.

NumPy and Pillow alone; the type is Pillow's own TrueType font, so that text looks the same on every machine.
"""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

PREDICTED_COLOUR = (255, 176, 32)
TRUE_COLOUR = (48, 224, 128)
BACKGROUND_COLOUR = (18, 20, 24)
TEXT_COLOUR = (240, 240, 240)
# One for each word, far apart on pictures and on the dark strip; the ninth word has the first one's.
WORD_COLOURS = ((255, 176, 32), (64, 190, 255), (250, 90, 170), (120, 230, 90), (190, 140, 255), (255, 240, 110),
                (255, 110, 70), (110, 240, 220))  # fmt: skip

# The meter runs from quiet room to full scale; the steps of colour are those of a recording desk.
METER_LOW_DB = -60.0
_METER_COLOURS = ((-60.0, (48, 192, 96)), (-18.0, (232, 200, 48)), (-6.0, (236, 72, 56)))

_FILL_OPACITY = 0.38
_HALF = 128  # of 1/256: rounds where the sum is cut to whole levels
_CELL_MIN_WIDTH = 192


class MaskLayer:
    """A mask made ready to be laid on many frames: a light fill, an outline, and a dark line around it.

    Each output pixel is (frame * keep + add) / 256, rounded, computed inside the mask's bounding box only.
    """

    def __init__(self, mask: Shaped[np.ndarray, "y x"], colour: tuple[int, int, int] = PREDICTED_COLOUR):
        """mask: [y, x], nonzero where a pixel sounds. The outline's width follows the frame's size."""
        mask = np.asarray(mask) > 0
        self._box = None
        if not mask.any():
            return
        stroke = max(1, round(max(mask.shape) / 250))
        rows, columns = np.flatnonzero(mask.any(1)).tolist(), np.flatnonzero(mask.any(0)).tolist()
        self._box = (
            slice(max(rows[0] - stroke, 0), rows[-1] + stroke + 1),
            slice(max(columns[0] - stroke, 0), columns[-1] + stroke + 1),
        )
        inside = mask[self._box]
        outline = inside & _dilate(~inside, stroke, border=_touches_border(self._box, mask.shape))
        halo = _dilate(inside, stroke) & ~inside
        self._keep = np.full(inside.shape + (1,), 256, np.uint16)
        self._add = np.full(inside.shape + (3,), _HALF, np.uint16)
        for region, opacity, paint in (
            (inside, _FILL_OPACITY, colour),
            (outline, 1.0, colour),
            (halo, 0.55, (0, 0, 0)),
        ):
            share = round(256 * opacity)
            self._keep[region] = 256 - share
            self._add[region] = [share * channel + _HALF for channel in paint]

    def draw_on(self, frame: UInt8[np.ndarray, "y x 3"]) -> None:
        """Changes the frame, which has the mask's size."""
        if self._box is None:
            return
        part = frame[self._box]
        frame[self._box] = (part * self._keep + self._add) >> 8


def draw_mask(
    frame: UInt8[np.ndarray, "y x 3"],
    mask: Shaped[np.ndarray, "y x"],
    colour: tuple[int, int, int] = PREDICTED_COLOUR,
) -> UInt8[np.ndarray, "y x 3"]:
    """A copy of the frame with the mask's fill and outline."""
    drawn = frame.copy()
    MaskLayer(mask, colour).draw_on(drawn)
    return drawn


def text_strip(
    text: str, width: int, height: int, font_size: int, colour: tuple[int, int, int] = TEXT_COLOUR
) -> UInt8[np.ndarray, "height width 3"]:
    """A dark strip with the text centred and wrapped; the type shrinks until all of it fits."""
    strip = Image.new("RGB", (width, height), BACKGROUND_COLOUR)
    text = printable(text)
    if not text:
        return np.array(strip)
    for size in range(font_size, 7, -1):
        type_face = font(size)
        lines = _wrap(text, type_face, width - size)
        line_height = round(size * 1.3)
        if len(lines) * line_height <= height:
            break
    lines = lines[: max(1, height // line_height)]
    draw = ImageDraw.Draw(strip)
    top = (height - len(lines) * line_height) / 2
    for number, line in enumerate(lines):
        draw.text((width / 2, top + (number + 0.5) * line_height), line, colour, type_face, anchor="mm")
    return np.array(strip)


def word_strip(
    words: Sequence[tuple[str, tuple[int, int, int]]], width: int, height: int, font_size: int
) -> UInt8[np.ndarray, "height width 3"]:
    """A dark strip with the words side by side, each in its colour; the type shrinks until all of them fit, in several
    lines where one is too short. What no type makes fit is cut at the right and at the end.
    """
    strip = Image.new("RGB", (width, height), BACKGROUND_COLOUR)
    named = [(printable(word), colour) for word, colour in words]
    for size in range(font_size, 7, -1):
        lines, line_height = _lines_of(named, size, width - size), round(size * 1.3)
        if len(lines) * line_height <= height and max(line[-1][2] for line in lines) <= width - size:
            break
    lines = lines[: max(1, height // line_height)]
    draw, top = ImageDraw.Draw(strip), (height - len(lines) * line_height) / 2
    for number, line in enumerate(lines):
        start = max((width - line[-1][2]) / 2, size / 2)
        for (word, colour), left, _ in line:
            draw.text((start + left, top + (number + 0.5) * line_height), word, colour, font(size), anchor="lm")
    return np.array(strip)


def printable(text: str) -> str:
    """One line, what cannot be printed left out."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


@functools.lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own type, pixels high."""
    return ImageFont.load_default(size=size)


def level_meter(level_db: float, width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
    """A horizontal bar from -60 dB to 0 dB of full scale, lit up to `level_db`."""
    lit, unlit = _meter_ends(width, height)
    share = np.clip((level_db - METER_LOW_DB) / -METER_LOW_DB, 0.0, 1.0)
    meter = unlit.copy()
    edge = round(float(share) * width)
    meter[:, :edge] = lit[:, :edge]
    return meter


def level_of(sound: Shaped[np.ndarray, "samples"]) -> float:
    """Root mean square in dB of full scale (1.0, or 32768 for int16); -120 for digital silence."""
    scale = 32768.0 if sound.dtype == np.int16 else 1.0
    power = float(np.mean(np.square(sound, dtype=np.float64))) / scale**2 if sound.size else 0.0
    return max(10 * np.log10(power), -120.0) if power > 0 else -120.0


def picture(
    frames: UInt8[np.ndarray, "t y x 3"],
    true_masks: Shaped[np.ndarray, "t y x"],
    predicted_masks: Shaped[np.ndarray, "t y x"] | Bool[np.ndarray, "t y x"],
    true_captions: Sequence[str],
    predicted_captions: Sequence[str],
) -> UInt8[np.ndarray, "height width 3"]:
    """A contact sheet of one clip: a column a second, the truth above (green), the prediction below (amber)."""
    cells = []
    for frame, true, predicted, said, wanted in zip(
        frames, true_masks, predicted_masks, predicted_captions, true_captions, strict=True
    ):
        column = [_cell(frame, true, wanted, TRUE_COLOUR), _cell(frame, predicted, said, PREDICTED_COLOUR)]
        cells.append(np.concatenate(column, axis=0))
    return np.concatenate(cells, axis=1)


def resize(picture: UInt8[np.ndarray, "..."], height: int, width: int) -> UInt8[np.ndarray, "..."]:
    """Pillow's resize: masks and enlarged pictures keep hard pixels, reduced pictures are averaged."""
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = picture.ndim == 3 and height < picture.shape[0]
    how = Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST
    return np.array(Image.fromarray(picture).resize((width, height), how))


def _cell(frame, mask, caption, colour) -> np.ndarray:
    scale = max(1, -(-_CELL_MIN_WIDTH // frame.shape[1]))
    height, width = frame.shape[0] * scale, frame.shape[1] * scale
    drawn = draw_mask(resize(frame, height, width), resize((mask > 0).astype(np.uint8), height, width), colour)
    cell = np.concatenate([drawn, text_strip(caption, width, 52, 13, colour)], axis=0)
    return np.pad(cell, ((1, 1), (1, 1), (0, 0)))


def _dilate(mask, radius: int, border: tuple[bool, bool, bool, bool] | None = None) -> np.ndarray:
    """Square dilation by shifts. `border` (top, bottom, left, right): sides beyond which all counts as set."""
    padded = np.pad(mask, radius)
    if border:
        top, bottom, left, right = border
        padded[:radius] |= top
        padded[padded.shape[0] - radius :] |= bottom
        padded[:, :radius] |= left
        padded[:, padded.shape[1] - radius :] |= right
    height, width = mask.shape
    rows = np.zeros((height, padded.shape[1]), bool)
    for shift in range(2 * radius + 1):
        rows |= padded[shift : shift + height]
    result = np.zeros((height, width), bool)
    for shift in range(2 * radius + 1):
        result |= rows[:, shift : shift + width]
    return result


def _touches_border(box, shape) -> tuple[bool, bool, bool, bool]:
    """Whether the box ends at the frame's edge; the outline is drawn along it there too."""
    rows, columns = box
    return rows.start == 0, rows.stop >= shape[0], columns.start == 0, columns.stop >= shape[1]


def _wrap(text: str, type_face, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and type_face.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _lines_of(named: Sequence[tuple], size: int, width: float) -> list[list[tuple[tuple, float, float]]]:
    """(word and colour, its left end, its right end) in lines of at most this width, if a single word has no more."""
    lines: list[list] = [[]]
    for word, colour in named:
        length = font(size).getlength(word)
        left = lines[-1][-1][2] + 1.5 * size if lines[-1] else 0.0
        if lines[-1] and left + length > width:
            lines.append([])
            left = 0.0
        lines[-1].append(((word, colour), left, left + length))
    return lines


@functools.lru_cache(maxsize=8)
def _meter_ends(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """The meter with every part lit, and with none: any level is a left part of one and a right part of the other."""
    levels = METER_LOW_DB * (1 - (np.arange(width) + 0.5) / width)
    lit = np.zeros((height, width, 3), np.uint8)
    for start, colour in _METER_COLOURS:
        lit[:, levels >= start] = colour
    unlit = (lit // 6).astype(np.uint8)
    images = [Image.fromarray(lit), Image.fromarray(unlit)]
    for image, ink in zip(images, ((16, 16, 16), (200, 200, 200)), strict=True):
        draw = ImageDraw.Draw(image)
        for tick in (-40, -20, -6):
            position = round(width * (1 - tick / METER_LOW_DB))
            draw.line([(position, 0), (position, height)], ink)
            if height >= 12:
                draw.text((position + 3, height / 2), f"{tick} dB", ink, font(min(height - 2, 20)), anchor="lm")
    return np.array(images[0]), np.array(images[1])
