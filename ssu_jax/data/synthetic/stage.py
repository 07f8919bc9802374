"""The pictures of a clip: things painted over a background, with the exact pixels that each shows.

Places are drawn anew until every object is large enough, hardly hidden, and in one place at all times.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ssu_jax.data.synthetic import backgrounds, looks, plan, sentences
from ssu_jax.data.synthetic.plan import IMAGE_SIZE, NUM_FRAMES, Streams, Thing

MIN_PIXELS = 100  # visible pixels of every object in every frame
MIN_VISIBLE = 0.72  # share of an object that occlusion leaves
MIN_COLOURED = 0.45  # share of the visible pixels that show the object's colour


class Pictures(NamedTuple):
    """What is seen. o objects, the first farthest away.

    frames: 0 to 255.  masks: visible pixels.  num_whole: pixels if nothing stood before the object.
    num_coloured: visible pixels of the object's own colour.
    """

    frames: Float[np.ndarray, "t y x 3"]
    masks: Bool[np.ndarray, "o t y x"]
    num_whole: Int[np.ndarray, "o t"]
    num_coloured: Int[np.ndarray, "o t"]


def set_stage(streams: Streams) -> tuple[list[Thing], Pictures]:
    """Everything that takes part in a clip, those in view first and in the order of the pictures' objects."""
    things = plan.cast(streams)
    background = backgrounds.paint_background(streams("background"), streams.shifted, IMAGE_SIZE)
    for attempt in range(100):
        placed = plan.place(things, streams, attempt)
        pictures = paint([thing for thing in placed if thing.on_screen], background)
        if _is_well_posed(pictures):
            return placed, pictures
    raise RuntimeError("no well-posed places found in 100 draws")


def paint(things: list[Thing], background: Float[np.ndarray, "y x 3"]) -> Pictures:
    """Placed things over a background. A pixel belongs to the last thing that covers at least half of it."""
    frames = np.repeat(background[None], NUM_FRAMES, 0)
    owner = np.full(frames.shape[:3], -1)
    coloured = np.zeros(frames.shape[:3], bool)
    whole = []
    for number, thing in enumerate(things):
        patch = looks.paint(thing)
        for t, (row, column) in enumerate(patch.corner):
            # The part of the patch that lies in the frame.
            top, left = max(row, 0), max(column, 0)
            bottom = min(row + patch.cover.shape[1], IMAGE_SIZE)
            right = min(column + patch.cover.shape[2], IMAGE_SIZE)
            inside = np.s_[t, top - row : bottom - row, left - column : right - column]
            area = np.s_[t, top:bottom, left:right]
            cover = patch.cover[inside]
            frames[area] += cover[..., None] * (patch.rgb[inside] - frames[area])
            owner[area][cover >= 0.5] = number
            coloured[area][cover >= 0.5] = patch.main[inside][cover >= 0.5]
        whole.append((patch.cover >= 0.5).sum((1, 2)))
    masks = owner == np.arange(len(things))[:, None, None, None]
    num_whole = np.array(whole, int).reshape(len(things), NUM_FRAMES)
    return Pictures(frames, masks, num_whole, (masks & coloured).sum((2, 3)))


def places_of(masks: Bool[np.ndarray, "t y x"]) -> list[str]:
    """Where the visible pixels of an object lie in each frame: left, middle, right, or "" between."""
    columns = (np.arange(masks.shape[2]) + 0.5) / masks.shape[2]
    centroids = (masks * columns).sum((1, 2)) / masks.sum((1, 2))
    return [sentences.place_of(float(centroid)) for centroid in centroids]


def _is_well_posed(pictures: Pictures) -> bool:
    num_visible = pictures.masks.sum((2, 3))
    if (num_visible < np.maximum(MIN_PIXELS, MIN_VISIBLE * pictures.num_whole)).any():
        return False
    if (pictures.num_coloured < MIN_COLOURED * num_visible).any():
        return False
    places = [set(places_of(masks)) for masks in pictures.masks]
    return all(len(found) == 1 and "" not in found for found in places)
