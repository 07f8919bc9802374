"""A page of one clip: what sounds when, and every second with its masks, its level, its sources and its sentence.

An object has the colour of its class: outlined and filled where it sounds, dotted where it stands silent.
"""

import colorsys
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.ndimage
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from ssu_jax.types import Clip, SoundObject
from ssu_jax.visualization import pictures

Colour = tuple[int, int, int]

COLUMNS = 5  # seconds side by side
CELL_WIDTH, GAP = 240, 6
FONT_SIZE = 13
_LINE, _METER, _CAPTION = 18, 10, 40
_NAMES_WIDTH = 220  # of the timeline
_GREY = (140, 144, 150)
_HUE_STEP = 0.618034  # the golden ratio: neighbours in the list of classes lie far apart on the circle of hues
_SHADES = ((0.85, 1.0), (0.4, 1.0), (0.75, 0.72))  # saturation and value: hues meet again 5, 8, 13 ... classes later


def class_colours(classes: Sequence[str]) -> dict[str, Colour]:
    """A bright colour for every class, the same in every picture of a data set."""
    parts = (colorsys.hsv_to_rgb(0.08 + place * _HUE_STEP, *_SHADES[place % 3]) for place in range(len(classes)))
    return {name: tuple(round(255 * part) for part in three) for name, three in zip(classes, parts, strict=True)}


def page(clip: Clip, title: str, colours: Mapping[str, Colour]) -> UInt8[np.ndarray, "height width 3"]:
    """title: the first line; colours: of every class that the clip names (`class_colours`)."""
    t, rows, columns = clip.frames.shape[:3]
    width = min(t, COLUMNS) * (CELL_WIDTH + GAP) + GAP
    width = max(width, 3 * (CELL_WIDTH + GAP) + GAP)  # room for the title
    height = max(1, round(CELL_WIDTH * rows / columns))
    heard = _seconds_of_sound(clip)
    cells = [_cell(clip, second, heard[second], height, colours) for second in range(t)]
    blocks = [_head(clip, title, width), _timeline(clip, width, colours)]
    for first in range(0, t, COLUMNS):
        row = np.concatenate([np.pad(cell, ((GAP, 0), (GAP, 0), (0, 0))) for cell in cells[first : first + COLUMNS]], 1)
        blocks.append(np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))))
    return np.concatenate([*blocks, np.zeros((GAP, width, 3), np.uint8)])


def _seconds_of_sound(clip: Clip) -> np.ndarray:
    sound = np.zeros(len(clip.frames) * clip.sample_rate, np.int16)
    sound[: len(clip.sound)] = clip.sound[: len(sound)]
    return sound.reshape(len(clip.frames), clip.sample_rate)


def _head(clip: Clip, title: str, width: int) -> np.ndarray:
    rows, columns = clip.frames.shape[1:3]
    facts = [part for part in (clip.dataset, clip.major, clip.category) if part]
    facts += [f"{rows} x {columns} pixels", f"{clip.sample_rate} Hz", f"{len(clip.frames)} s"]
    canvas, draw = _canvas(width, 2 * _LINE + 8)
    _text(draw, (GAP, 4), title, pictures.TEXT_COLOUR, width - 2 * GAP, FONT_SIZE + 2)
    _text(draw, (GAP, _LINE + 6), " · ".join(facts), _GREY, width - 2 * GAP)
    return np.array(canvas)


def _timeline(clip: Clip, width: int, colours: Mapping[str, Colour]) -> np.ndarray:
    """A row an object, a block a second: full where it sounds, a question mark where that is not known."""
    t = len(clip.frames)
    step = (width - _NAMES_WIDTH - GAP) / t
    canvas, draw = _canvas(width, _LINE * (len(clip.objects) + 1) + 4)
    for second in range(0, t, max(1, -(-28 // max(int(step), 1)))):
        _text(draw, (_NAMES_WIDTH + second * step, 1), f"{second}", _GREY, 40, FONT_SIZE - 2)
    for number, item in enumerate(clip.objects):
        top, colour = _LINE * (number + 1), colours[item.name]
        draw.rectangle((GAP, top + 3, GAP + 11, top + _LINE - 4), colour)
        _text(draw, (GAP + 18, top + 1), item.name + _seen_as(item), pictures.TEXT_COLOUR, _NAMES_WIDTH - GAP - 24)
        for second in range(t):
            left = _NAMES_WIDTH + round(second * step)
            box = (left, top + 3, _NAMES_WIDTH + round((second + 1) * step) - 3, top + _LINE - 4)
            if not clip.sources_known[second]:
                _text(draw, (left + 2, top), "?", _GREY, 20)
            else:
                draw.rectangle(box, colour if item.sounding[second] else None, tuple(part // 3 for part in colour))
    return np.array(canvas)


def _seen_as(item: SoundObject) -> str:
    if not item.on_screen:
        return " (off screen)"
    return "" if item.masks is not None else " (no mask)" if item.boxes is None else " (boxes)"


def _cell(clip: Clip, second: int, heard: np.ndarray, height: int, colours: Mapping[str, Colour]) -> np.ndarray:
    known, objects = clip.sources_known[second], clip.objects
    picture = pictures.resize(clip.frames[second], height, CELL_WIDTH).copy()
    if not clip.masks_known[second]:
        objects = tuple(dataclasses.replace(item, masks=None) for item in objects)
    for item in sorted(objects, key=lambda item: bool(item.sounding[second])):  # what sounds is drawn last
        _draw_object(picture, item, second, bool(known and item.sounding[second]), colours[item.name])
    canvas, draw = _canvas(CELL_WIDTH, _LINE)
    minutes, seconds = divmod(float(clip.frame_times[second]), 60)
    _text(draw, (4, 1), f"{int(minutes)}:{seconds:05.2f}", pictures.TEXT_COLOUR, 80)
    level = pictures.level_of(heard)
    told = f"{level:.0f} dB" if level > -120 else "no sound"
    if not clip.valid[second]:
        told, picture = "padding", picture // 3
    draw.text((CELL_WIDTH - 4, 1), told, _GREY, pictures.font(FONT_SIZE), anchor="ra")
    meter = pictures.level_meter(level, CELL_WIDTH, _METER)
    caption, colour = clip.captions[second], pictures.TEXT_COLOUR
    if not clip.captions_known[second]:
        caption, colour = "sentence not known", _GREY
    words = pictures.text_strip(caption, CELL_WIDTH, _CAPTION, FONT_SIZE, colour)
    return np.concatenate([np.array(canvas), picture, meter, _names(clip, second, colours), words])


def _names(clip: Clip, second: int, colours: Mapping[str, Colour]) -> np.ndarray:
    """The sources of a second, each in its colour."""
    canvas, draw = _canvas(CELL_WIDTH, _LINE)
    left = 4
    for item in clip.objects if clip.sources_known[second] else ():
        if item.sounding[second]:
            name = item.name if item.on_screen else f"({item.name})"
            left += 10 + _text(draw, (left, 1), name, colours[item.name], CELL_WIDTH - left)
    if not clip.sources_known[second]:
        _text(draw, (4, 1), "sources not known", _GREY, CELL_WIDTH)
    elif not any(item.sounding[second] for item in clip.objects):
        _text(draw, (4, 1), "nothing sounds", _GREY, CELL_WIDTH)
    return np.array(canvas)


def _draw_object(picture: np.ndarray, item: SoundObject, second: int, sounds: bool, colour: Colour) -> None:
    """Changes the picture."""
    height, width = picture.shape[:2]
    if item.masks is not None:
        mask = pictures.resize(item.masks[second].astype(np.uint8), height, width)
        if sounds:
            pictures.MaskLayer(mask, colour).draw_on(picture)
            return
        y, x = np.mgrid[:height, :width]
        outline = (mask > 0) & ~scipy.ndimage.binary_erosion(mask, iterations=2)
        picture[outline & ((x + y) // 4 % 2 == 0)] = colour
    elif item.boxes is not None and np.isfinite(item.boxes[second]).all():
        image = Image.fromarray(picture)
        corners = item.boxes[second] * (width - 1, height - 1, width - 1, height - 1)
        ImageDraw.Draw(image).rectangle(corners.tolist(), None, colour, 3 if sounds else 1)
        picture[:] = image


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("RGB", (width, height), pictures.BACKGROUND_COLOUR)
    return canvas, ImageDraw.Draw(canvas)


def _text(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, colour: Colour, width: float,
          size: int = FONT_SIZE) -> float:  # fmt: skip
    """One line, cut to the width with an ellipsis; returns how wide it became, pixels."""
    font, shown = pictures.font(size), pictures.printable(text)
    while shown and font.getlength(shown) > width:
        shown = shown.removesuffix("…")[:-1] + "…" if len(shown) > 1 else ""
    draw.text(place, shown, colour, font)
    return font.getlength(shown)
