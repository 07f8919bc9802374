"""Sentences that stay true when the pictures change.

Only sentences of the built-in world can be said anew: their grammar is known, and the clip's objects with the
colours that its sentences name give every part of them. That they are such is proved, not assumed: the sentences said
from the unchanged objects must be the clip's own. Any other sentence is kept, as long as nothing it may
speak of has changed.
"""

import re

import numpy as np

from ssu_jax.data.synthetic import sentences
from ssu_jax.types import Clip, SoundObject

_MENTION = re.compile(rf"\b[Tt]he (\w+) (\w+) (?:{'|'.join(sentences.PLACES.values())}) is\b")
_THIRDS = 3  # left, middle, right: places of foreign sentences, whose bounds are not known


def mended_captions(clip: Clip, objects: tuple[SoundObject, ...]) -> tuple[str, ...] | None:
    """The clip's sentences for its objects as they are after a change, in the same order; None if that is unclear."""
    colours = {name: colour for caption in clip.captions for colour, name in _MENTION.findall(caption)}
    if _said(clip.objects, colours, len(clip.captions)) == clip.captions:
        return _said(objects, colours, len(clip.captions))
    changed = any(_has_moved(old, new) for old, new in zip(clip.objects, objects, strict=True))
    return None if changed else clip.captions


def _said(objects: tuple[SoundObject, ...], colours: dict[str, str], num_frames: int) -> tuple[str, ...] | None:
    """The world's sentences about objects; None where a colour is unknown or a place lies between two."""
    seen = [(item, _centroids(item.masks)) for item in objects if item.on_screen and item.masks is not None]
    said = []
    for t in range(num_frames):
        mentions = [
            sentences.Mention(item.name, colours.get(item.name, ""), sentences.place_of(centroids[t]))
            for item, centroids in seen
            if item.sounding[t]
        ]
        if any(mention.name not in sentences.VERBS for mention in mentions):
            return None
        # A sentence about three names neither colour nor place.
        if len(mentions) <= 2 and not all(mention.colour and mention.place for mention in mentions):
            return None
        said.append(sentences.describe(mentions))
    return tuple(said)


def _has_moved(old: SoundObject, new: SoundObject) -> bool:
    """Whether a sounding object has left the picture or stands in another third of it."""
    if old.masks is None:
        return False
    if new.masks is None:
        return bool(old.sounding.any())
    thirds = [np.floor(_centroids(item.masks[old.sounding]) * _THIRDS) for item in (old, new)]
    return not np.array_equal(*thirds, equal_nan=True)


def _centroids(masks: np.ndarray) -> np.ndarray:
    """float64 [t]: mean column of each mask's pixels, share of the width; NaN for an empty mask."""
    columns = masks.sum(1)
    pixels = columns.sum(1)
    centres = columns @ (np.arange(masks.shape[2]) + 0.5) / np.maximum(pixels, 1) / masks.shape[2]
    return np.where(pixels > 0, centres, np.nan)
