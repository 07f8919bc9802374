"""Changes of a clip in training that keep pictures, masks, sound, sentences and sources consistent.

Each change is a pure function of a Clip. Colours are never turned (sentences name them): brightness and
contrast act alike on the three channels, which leaves the hue where it is.
"""

import dataclasses
import re

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from ssu_jax.config.data import AugmentConfig
from ssu_jax.data.captions import mended_captions
from ssu_jax.types import KNOWN_FLAGS, Clip, SoundObject

CROP_TRIES = 4
KEPT_SHARE = 0.8  # of an object's pixels: with fewer, what the sentence says might not be seen
_MIRRORED = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}


def augment(clip: Clip, options: AugmentConfig, rng: np.random.Generator) -> Clip:
    """All changes, drawn from `rng`. Every draw is made every time, so one option does not shift another's."""
    flip, brightness, contrast, gain, shift = rng.random(5)
    crops = rng.random((CROP_TRIES, 3))
    if flip < options.flip_probability:
        clip = mirror(clip)
    if options.crop_min_scale < 1:
        for scale, top, left in crops:
            share = options.crop_min_scale + scale * (1 - options.crop_min_scale)
            cropped = crop(clip, share, top * (1 - share), left * (1 - share))
            if cropped is not None:
                clip = cropped
                break
    clip = adjust_light(clip, options.brightness * (2 * brightness - 1), 1 + options.contrast * (2 * contrast - 1))
    samples = round(options.time_shift_seconds * (2 * shift - 1) * clip.sample_rate)
    return adjust_sound(clip, options.gain_db * (2 * gain - 1), samples)


def stretch(clip: Clip, start: int, seconds: int) -> Clip:
    """The clip from second `start` on, `seconds` long."""
    part = slice(start, start + seconds)
    samples = slice(start * clip.sample_rate, (start + seconds) * clip.sample_rate)
    return dataclasses.replace(
        clip,
        frames=clip.frames[part],
        frame_times=clip.frame_times[part] - start,
        sound=clip.sound[samples],
        valid=clip.valid[part],
        captions=clip.captions[part],
        objects=tuple(_part_of(item, part) for item in clip.objects),
        **{name: getattr(clip, name)[part] for name in KNOWN_FLAGS},
    )


def mirror(clip: Clip) -> Clip:
    """Left becomes right in the pictures, the masks and the sentences."""
    objects = tuple(_mirrored(item) for item in clip.objects)
    captions = tuple(
        re.sub(r"\b([Ll]eft|[Rr]ight)\b", lambda word: _MIRRORED[word.group()], text) for text in clip.captions
    )
    return dataclasses.replace(clip, frames=clip.frames[:, :, ::-1], objects=objects, captions=captions)


def crop(clip: Clip, share: float, top: float, left: float) -> Clip | None:
    """The window of `share` of both sides that begins at (top, left), as shares, enlarged to the clip's size.

    An object that is wholly outside leaves the picture: it has no mask, is off screen, and no sentence names it.
    None where the outcome would be unclear: a sounding object partly cut off, a sentence that cannot be mended.
    """
    if not clip.masks_known[clip.valid].all() and (clip.masks_known.any() or any(clip.captions)):
        return None  # an object of unknown extent may be cut off that a mask or a sentence tells of
    rows, columns = clip.frames.shape[1:3]
    box = (left * columns, top * rows, (left + share) * columns, (top + share) * rows)
    y, x = _nearest(box[1], box[3], rows), _nearest(box[0], box[2], columns)
    objects = []
    for item in clip.objects:
        if item.masks is not None:
            masks = _taken(item.masks, y, x)
            if not masks.any():
                item = dataclasses.replace(item, on_screen=False, masks=None)
            elif _is_cut(item.masks[item.sounding], masks[item.sounding], share):
                return None
            else:
                item = dataclasses.replace(item, masks=masks)
        if item.boxes is not None:
            item = dataclasses.replace(item, boxes=_cropped(item.boxes, share, top, left))
        objects.append(item)
    captions = mended_captions(clip, tuple(objects))
    if captions is None:
        return None
    gone = any(item.name == clip.category and not item.on_screen for item in objects)
    return dataclasses.replace(
        clip,
        frames=resize_frames(clip.frames, rows, columns, box),
        objects=tuple(objects),
        captions=captions,
        category="" if gone else clip.category,
    )


def adjust_light(clip: Clip, brightness: float, contrast: float) -> Clip:
    """value -> (value - 127.5) * contrast + 127.5 + 255 * brightness, the same in each channel."""
    table = (np.arange(256) - 127.5) * contrast + 127.5 + 255 * brightness
    table = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    # bytes.translate looks values up several times faster than NumPy's indexing.
    frames = np.frombuffer(clip.frames.tobytes().translate(table.tobytes()), np.uint8)
    return dataclasses.replace(clip, frames=frames.reshape(clip.frames.shape))


def adjust_sound(clip: Clip, gain_db: float, samples: int) -> Clip:
    """Shifts the sound by whole samples (later when positive; silence enters) and changes its level, clipped."""
    sound = np.zeros(len(clip.sound), np.float32)
    if samples >= 0:
        sound[samples:] = clip.sound[: len(sound) - samples]
    else:
        sound[:samples] = clip.sound[-samples:]
    sound *= np.float32(10 ** (gain_db / 20))
    return dataclasses.replace(clip, sound=np.clip(np.rint(sound), -32768, 32767).astype(np.int16))


def resize_frames(
    frames: UInt8[np.ndarray, "t y1 x1 3"], rows: int, columns: int, box: tuple[float, ...] | None = None
) -> UInt8[np.ndarray, "t y x 3"]:
    """Bilinear (antialiased) resize of frames, or of a box (left, top, right, bottom in pixels) of them."""
    resized = np.empty((len(frames), rows, columns, 3), np.uint8)
    for target, frame in zip(resized, np.ascontiguousarray(frames), strict=True):
        target[:] = Image.fromarray(frame).resize((columns, rows), Image.Resampling.BILINEAR, box)
    return resized


def resize_masks(masks: Bool[np.ndarray, "t y1 x1"], rows: int, columns: int) -> Bool[np.ndarray, "t y x"]:
    """Nearest neighbour, so that a mask stays a mask."""
    y, x = _nearest(0, masks.shape[1], masks.shape[1], rows), _nearest(0, masks.shape[2], masks.shape[2], columns)
    return _taken(masks, y, x)


def _part_of(item: SoundObject, part: slice) -> SoundObject:
    masks, boxes = (None if values is None else values[part] for values in (item.masks, item.boxes))
    return dataclasses.replace(item, sounding=item.sounding[part], masks=masks, boxes=boxes)


def _mirrored(item: SoundObject) -> SoundObject:
    masks = None if item.masks is None else item.masks[:, :, ::-1]
    boxes = None if item.boxes is None else np.stack(
        [1 - item.boxes[:, 2], item.boxes[:, 1], 1 - item.boxes[:, 0], item.boxes[:, 3]], axis=1)  # fmt: skip
    return dataclasses.replace(item, masks=masks, boxes=boxes)


def _cropped(boxes: np.ndarray, share: float, top: float, left: float) -> np.ndarray:
    """Boxes as shares of the window; NaN for one that lies outside."""
    moved = np.clip((boxes - np.float32([left, top, left, top])) / np.float32(share), 0, 1)
    moved[(moved[:, 2] <= moved[:, 0]) | (moved[:, 3] <= moved[:, 1])] = np.nan
    return moved


def _taken(masks: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """masks[:, y][:, :, x], taken as they lie in memory: masks from run lengths lie column after column."""
    if masks.strides[1] < masks.strides[2]:
        return masks.transpose(0, 2, 1).take(x, 1).take(y, 2).transpose(0, 2, 1)
    return masks.take(y, 1).take(x, 2)


def _nearest(low: float, high: float, size: int, wanted: int | None = None) -> np.ndarray:
    """Pixel numbers under the centres of `wanted` (else `size`) equal parts of the span from low to high."""
    wanted = wanted or size
    return np.clip(np.floor(low + (np.arange(wanted) + 0.5) * (high - low) / wanted), 0, size - 1).astype(int)


def _is_cut(before: np.ndarray, after: np.ndarray, share: float) -> bool:
    """Whether more than a fifth of the object's pixels is lost in some frame."""
    return bool((after.sum((1, 2)) * share**2 < KEPT_SHARE * before.sum((1, 2))).any())
