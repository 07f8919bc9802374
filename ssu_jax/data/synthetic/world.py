"""A clip of the built-in world: pictures with exact masks, sound and sentences from (seed, split, index) alone.

Everything is computed in float64 and rounded once, without matrix products, so that the bytes are the same
whatever the process, the number of workers or the processor's features.
"""

import dataclasses

import numpy as np

from ssu_jax.config.labels import SYNTHETIC
from ssu_jax.data.synthetic import backgrounds, looks, plan, sentences, signals, sounds
from ssu_jax.data.synthetic.plan import IMAGE_SIZE, NUM_FRAMES, SAMPLE_RATE, Streams, Thing
from ssu_jax.types import Clip, SoundObject

LEVEL_DB = -20.0  # common level of the sources, decibels of full scale (root mean square while they sound)
PEAK = 0.95  # the mix is turned down to this where it would clip
MIN_PIXELS = 100  # visible pixels of every object in every frame
MIN_VISIBLE = 0.72  # share of an object that occlusion leaves
MIN_COLOURED = 0.45  # share of the visible pixels that show the object's colour


def make_clip(seed: int, split: str, index: int) -> Clip:
    """Clip `index` of a split: 10 frames of 96 x 96, 10 seconds at 16 kHz, one sentence a second."""
    streams = Streams(seed, split, index)
    things, pictures = _stage(streams)
    return _assemble(f"{split}-{seed}-{index:06d}", streams, things, pictures)


def make_counterfactual(seed: int, split: str, index: int) -> tuple[Clip, Clip] | None:
    """The same pictures twice: one source sounds alone; at the same times another object in view sounds instead.

    None when the clip has no source in view or no second object in view.
    """
    streams = Streams(seed, split, index)
    things, pictures = _stage(streams)
    seen = [thing for thing in things if thing.on_screen]
    sources = [thing for thing in seen if thing.intervals]
    if not sources or len(seen) < 2:
        return None
    first = max(sources, key=lambda thing: sum(stop - start for start, stop in thing.intervals))
    others = [thing for thing in seen if thing is not first]
    second = min(others, key=lambda thing: bool(thing.intervals))  # rather one that was silent all along
    result = []
    for name, chosen in (("before", first), ("after", second)):
        changed = [dataclasses.replace(item, intervals=first.intervals if item is chosen else ()) for item in seen]
        result.append(_assemble(f"{split}-{seed}-{index:06d}-{name}", streams, changed, pictures))
    return result[0], result[1]


def _stage(streams: Streams) -> tuple[list[Thing], tuple[np.ndarray, list[np.ndarray]]]:
    """The placed things and their pictures; places are drawn anew until the clip is well posed."""
    things = plan.cast(streams)
    for attempt in range(100):
        placed = plan.place(things, streams, attempt)
        frames, masks, coloured = _draw([thing for thing in placed if thing.on_screen], streams)
        if all(_well_posed(mask, part) for mask, part in zip(masks, coloured, strict=True)):
            return placed, (frames, [mask[0] for mask in masks])
    raise RuntimeError("no well-posed places found in 100 draws")


def _draw(things: list[Thing], streams: Streams):
    """Paint the things over the background, the first farthest away.

    Returns frames float64 [t, y, x, 3]; per thing (visible mask bool [t, y, x], pixels without occlusion int [t]);
    per thing the visible pixels of its main colour, int [t].
    """
    background = backgrounds.paint_background(streams("background"), streams.shifted, IMAGE_SIZE)
    frames = np.repeat(background[None], NUM_FRAMES, 0)
    owner = np.full((NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE), -1)
    main = np.zeros(owner.shape, bool)
    whole = []
    for number, thing in enumerate(things):
        rgb, cover, is_main, corners = looks.paint(thing)
        for t, (row, column) in enumerate(corners):
            # The part of the patch that lies in the frame.
            top, left = max(row, 0), max(column, 0)
            bottom, right = min(row + rgb.shape[1], IMAGE_SIZE), min(column + rgb.shape[2], IMAGE_SIZE)
            inside = np.s_[t, top - row : bottom - row, left - column : right - column]
            area = np.s_[t, top:bottom, left:right]
            frames[area] += cover[inside][..., None] * (rgb[inside] - frames[area])
            shown = cover[inside] >= 0.5
            owner[area][shown] = number
            main[area][shown] = is_main[inside][shown]
        whole.append((cover >= 0.5).sum((1, 2)))
    masks = [(owner == number, whole[number]) for number in range(len(things))]
    return frames, masks, [(mask & main).sum((1, 2)) for mask, _ in masks]


def _well_posed(mask_and_whole: tuple[np.ndarray, np.ndarray], coloured: np.ndarray) -> bool:
    """Large enough, little hidden, its colour in sight, and in one place at all times."""
    mask, whole = mask_and_whole
    pixels = mask.sum((1, 2))
    if (pixels < MIN_PIXELS).any() or (pixels < MIN_VISIBLE * whole).any() or (coloured < MIN_COLOURED * pixels).any():
        return False
    places = {sentences.place_of(centroid) for centroid in _centroids(mask)}
    return len(places) == 1 and "" not in places


def _centroids(mask: np.ndarray) -> np.ndarray:
    """float64 [t]: mean column of the mask's pixels, share of the width."""
    columns = (np.arange(mask.shape[2]) + 0.5) / mask.shape[2]
    return (mask * columns).sum((1, 2)) / mask.sum((1, 2))


def _assemble(clip_id: str, streams: Streams, things: list[Thing], pictures) -> Clip:
    frames, masks = pictures
    seen = [thing for thing in things if thing.on_screen]
    places = [sentences.place_of(_centroids(mask)[0]) for mask in masks]
    mentions = [sentences.Mention(thing.name, thing.colour, at) for thing, at in zip(seen, places, strict=True)]
    sounding = [thing.sounding for thing in seen]
    captions = tuple(
        sentences.describe([mention for mention, active in zip(mentions, sounding, strict=True) if active[t]])
        for t in range(NUM_FRAMES)
    )
    objects = [SoundObject(thing.name, thing.sounding, True, mask) for thing, mask in zip(seen, masks, strict=True)]
    objects += [SoundObject(thing.name, thing.sounding, False) for thing in things if not thing.on_screen]
    category = max((thing for thing in seen if thing.intervals), key=_total_seconds, default=None)
    return Clip(
        id=clip_id,
        frames=np.rint(np.clip(frames, 0, 255)).astype(np.uint8),
        frame_times=np.arange(NUM_FRAMES) + 0.5,
        sound=_play(things, streams),
        sample_rate=SAMPLE_RATE,
        valid=np.ones(NUM_FRAMES, bool),
        captions=captions,
        objects=tuple(sorted(objects, key=lambda item: item.name)),
        dataset="synthetic",
        major=SYNTHETIC[category.name] if category else "",
        category=category.name if category else "",
    )


def _total_seconds(thing: Thing) -> float:
    return sum(stop - start for start, stop in thing.intervals)


def _play(things: list[Thing], streams: Streams) -> np.ndarray:
    """int16 [samples]: the sources in their intervals over an ambience below each of them."""
    num_samples = NUM_FRAMES * SAMPLE_RATE
    sources = [thing for thing in things if thing.intervals]
    gains = [thing.gain_db for thing in sources]
    rng = streams("ambience")
    quiet = rng.random() < plan.DIGITAL_SILENCE
    low, high = plan.AMBIENCE_DB
    below = rng.uniform(low, high - (max(gains) - min(gains) if gains else 0.0))
    mix = np.zeros(num_samples)
    if sources or not quiet:
        floor = LEVEL_DB + min(gains, default=rng.uniform(-plan.GAIN_DB, plan.GAIN_DB)) - below
        mix += signals.at_level(signals.ambience(rng, num_samples), floor)
    for thing in sources:
        mix += _source(thing, streams("sound", thing.name), num_samples)
    peak = np.abs(mix).max()
    return np.rint(mix * (32767 * min(1.0, PEAK / max(peak, 1e-12)))).astype(np.int16)


def _source(thing: Thing, rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """float64 [samples]: the thing's sound at its level inside its intervals, zero elsewhere."""
    result = np.zeros(num_samples)
    bounds = [(round(start * SAMPLE_RATE), round(stop * SAMPLE_RATE)) for start, stop in thing.intervals]
    waves = [sounds.SOUNDS[thing.name](stop - start, thing.timbre, rng) for start, stop in bounds]
    loud = np.sqrt(sum((wave**2).sum() for wave in waves) / sum(len(wave) for wave in waves))
    for (start, stop), wave in zip(bounds, waves, strict=True):
        level = 10 ** ((LEVEL_DB + thing.gain_db) / 20) / loud
        result[start:stop] = signals.hann_edges(level * wave, signals.FADE_SECONDS)
    return result
