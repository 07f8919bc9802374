"""A clip of the built-in world: pictures with exact masks, sound and sentences from (seed, split, index) alone.

Everything is computed in float64 and rounded once, without matrix products, so that the bytes are the same
whatever the process, the number of workers or the processor's features.
"""

import dataclasses

import numpy as np

from ssu_jax.config.labels import SYNTHETIC
from ssu_jax.data.synthetic import mixing, sentences
from ssu_jax.data.synthetic.plan import NUM_FRAMES, SAMPLE_RATE, Streams, Thing
from ssu_jax.data.synthetic.stage import Pictures, places_of, set_stage
from ssu_jax.types import Clip, SoundObject


def make_clip(seed: int, split: str, index: int) -> Clip:
    """Clip `index` of a split: 10 frames of 96 x 96, 10 seconds at 16 kHz, one sentence a second.

    Raises ValueError for an unknown split, a negative seed or index.
    """
    streams = Streams(seed, split, index)
    things, pictures = set_stage(streams)
    return _assemble(f"{split}-{seed}-{index:06d}", streams, things, pictures)


def make_counterfactual(seed: int, split: str, index: int) -> tuple[Clip, Clip] | None:
    """The same pictures twice: one source sounds alone; at the same times another object in view sounds instead.

    None when the clip has no source in view or no second object in view. Raises ValueError as `make_clip`.
    """
    streams = Streams(seed, split, index)
    things, pictures = set_stage(streams)
    seen = [thing for thing in things if thing.on_screen]
    first = max((thing for thing in seen if thing.intervals), key=_total_seconds, default=None)
    if first is None or len(seen) < 2:
        return None
    # Rather one that was silent all along.
    second = min((thing for thing in seen if thing is not first), key=_total_seconds)
    result = []
    for name, chosen in (("before", first), ("after", second)):
        changed = [dataclasses.replace(item, intervals=first.intervals if item is chosen else ()) for item in seen]
        result.append(_assemble(f"{split}-{seed}-{index:06d}-{name}", streams, changed, pictures))
    return result[0], result[1]


def _assemble(clip_id: str, streams: Streams, things: list[Thing], pictures: Pictures) -> Clip:
    seen = [thing for thing in things if thing.on_screen]
    longest = max((thing for thing in seen if thing.intervals), key=_total_seconds, default=None)
    objects = [
        SoundObject(thing.name, thing.sounding, True, masks) for thing, masks in zip(seen, pictures.masks, strict=True)
    ]
    objects += [SoundObject(thing.name, thing.sounding, False) for thing in things if not thing.on_screen]
    return Clip(
        id=clip_id,
        frames=np.rint(np.clip(pictures.frames, 0, 255)).astype(np.uint8),
        frame_times=np.arange(NUM_FRAMES) + 0.5,
        sound=mixing.mix(things, streams),
        sample_rate=SAMPLE_RATE,
        valid=np.ones(NUM_FRAMES, bool),
        captions=_captions(seen, pictures),
        objects=tuple(sorted(objects, key=lambda item: item.name)),
        dataset="synthetic",
        major=SYNTHETIC[longest.name] if longest else "",
        category=longest.name if longest else "",
    )


def _captions(seen: list[Thing], pictures: Pictures) -> tuple[str, ...]:
    said = []
    for t in range(NUM_FRAMES):
        mentions = [
            sentences.Mention(thing.name, thing.colour, places_of(masks[t : t + 1])[0])
            for thing, masks in zip(seen, pictures.masks, strict=True)
            if thing.sounding[t]
        ]
        said.append(sentences.describe(mentions))
    return tuple(said)


def _total_seconds(thing: Thing) -> float:
    return sum(stop - start for start, stop in thing.intervals)
