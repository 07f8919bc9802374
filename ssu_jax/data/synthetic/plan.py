"""What stands where and what sounds when: every random decision of a clip, before anything is drawn or played.

A clip depends on (seed, split, index) alone. Each decision has its own named stream of random numbers, so that
a change in one (an object more) does not disturb the others (the background).
"""

import dataclasses
import zlib

import numpy as np
from jaxtyping import Float

from ssu_jax.config.labels import SYNTHETIC_CLASSES
from ssu_jax.data.synthetic import looks

SPLITS = ("train", "val", "test", "test-shift")
NUM_FRAMES = 10
IMAGE_SIZE = 96
SAMPLE_RATE = 16000

# How a clip sounds, with its share of the clips: no sound but ambience; a source that is never seen;
# one, two or three sources in view.
KINDS = {"silent": 0.08, "offscreen": 0.10, "one": 0.25, "two": 0.29, "three": 0.28}
NUM_SOURCES = {"silent": 0, "offscreen": 0, "one": 1, "two": 2, "three": 3}
# Share of clips of each kind with 0, 1, 2, ... objects that stand silent for the whole clip.
NUM_SILENT = {
    "silent": (0.0, 0.35, 0.40, 0.25),
    "offscreen": (0.0, 0.35, 0.40, 0.25),
    "one": (0.08, 0.42, 0.35, 0.15),
    "two": (0.20, 0.50, 0.30),
    "three": (0.40, 0.45, 0.15),
}
OFFSCREEN_TOO = {"one": 0.22, "two": 0.15}  # share of clips with a source out of view besides those in view
SAME_COLOUR = 1 / 3  # share of clips with all objects of one colour
TWO_INTERVALS = 0.35  # share of sources that stop and start again

# Starts and stops lie off the second grid, and far from the half second that decides "sounds in this second".
OFF_GRID = (0.08, 0.30)
GAIN_DB = 4.0  # sources lie within +-4 dB: at most 8 dB apart

AREA = (250.0, 600.0)  # pixels of an object at 96 x 96
CROWDED_AREA = (230.0, 380.0)  # with four or five objects in view
SHIFT_AREA = ((150.0, 215.0), (640.0, 800.0))  # sizes held out from training


@dataclasses.dataclass(frozen=True)
class Thing:
    """A source or a silent object.

    x, y: float64 [t], pixels.  tilt: float64 [t], radians.  half: half of the look's box, pixels.
    timbre: float64 [4], each 0 to 1: pitch, tempo, brightness, character.  gain_db: relative to the common level.
    intervals: seconds from start to stop, in order; empty when it is silent.
    """

    name: str
    colour: str
    on_screen: bool
    timbre: np.ndarray
    gain_db: float
    intervals: tuple[tuple[float, float], ...] = ()
    half: float = 0.0
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    tilt: np.ndarray | None = None
    mirrored: bool = False
    tint: float = 1.0

    @property
    def sounding(self) -> np.ndarray:
        """bool [t]: sounds for at least half of the second."""
        return sounding_share(self.intervals) >= 0.5


class Streams:
    """Named streams of random numbers of one clip."""

    def __init__(self, seed: int, split: str, index: int):
        if split not in SPLITS or seed < 0 or index < 0:
            raise ValueError(
                f"wanted a split of {', '.join(SPLITS)}, a seed and an index from 0 on, got {split!r}, {seed}, {index}"
            )
        self.shifted = split == "test-shift"
        self._key = [seed, SPLITS.index(split), index]

    def __call__(self, *name: str | int) -> np.random.Generator:
        """The stream of this name, always from its beginning."""
        number = zlib.crc32("/".join(map(str, name)).encode())
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([*self._key, number])))


def sounding_share(intervals: tuple[tuple[float, float], ...]) -> Float[np.ndarray, "t"]:
    """Share of each second that lies inside the intervals."""
    seconds = np.arange(NUM_FRAMES, dtype=np.float64)
    share = np.zeros(NUM_FRAMES)
    for start, stop in intervals:
        share += np.clip(np.minimum(stop, seconds + 1) - np.maximum(start, seconds), 0.0, 1.0)
    return share


def cast(streams: Streams) -> list[Thing]:
    """Who takes part and when each sounds; no places yet."""
    rng = streams("cast")
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    num_sources = NUM_SOURCES[kind]
    num_silent = int(rng.choice(len(NUM_SILENT[kind]), p=NUM_SILENT[kind]))
    num_offscreen = int(rng.integers(1, 3)) if kind == "offscreen" else int(rng.random() < OFFSCREEN_TOO.get(kind, 0.0))
    names = rng.permutation(SYNTHETIC_CLASSES)
    colours = rng.choice(list(looks.COLOURS), len(names))
    if rng.random() < SAME_COLOUR:
        colours[:] = colours[0]
    intervals = timeline(rng, num_sources, num_offscreen)
    things = []
    for number in range(num_sources + num_offscreen + num_silent):
        things.append(
            Thing(
                name=str(names[number]),
                colour=str(colours[number]),
                on_screen=not num_sources <= number < num_sources + num_offscreen,
                timbre=_timbre(rng, streams.shifted),
                gain_db=rng.uniform(-GAIN_DB, GAIN_DB),
                intervals=intervals[number] if number < len(intervals) else (),
            )
        )
    return things


def timeline(rng: np.random.Generator, num_seen: int, num_unseen: int) -> list[tuple[tuple[float, float], ...]]:
    """Intervals of the sources in view, then of those out of view: each 2 to 5 seconds in all, partly at once."""
    for _ in range(200):
        drawn = [_intervals(rng) for _ in range(num_seen + num_unseen)]
        active = np.stack([sounding_share(item) >= 0.5 for item in drawn]) if drawn else np.zeros((0, NUM_FRAMES), bool)
        together = active[:num_seen].all(0).sum() if num_seen > 1 else 1
        alone = (active[num_seen:].any(0) & ~active[:num_seen].any(0)).sum() if num_unseen else 1
        if 1 <= together <= 3 and alone and active.sum(0).max(initial=0) <= 3:
            return drawn
    raise RuntimeError("no timeline found in 200 draws")


def place(things: list[Thing], streams: Streams, attempt: int) -> list[Thing]:
    """Sizes, places and motion of the things in view; each attempt is another draw."""
    rng = streams("place", attempt)
    seen = [thing for thing in things if thing.on_screen]
    # Later attempts shrink the objects a little, so that a crowded clip always finds room.
    shrink = max(0.97**attempt, 0.8)
    for _ in range(300):
        cells = rng.permutation(6)[: len(seen)].tolist()
        zones = [cell // 2 for cell in cells]
        placed = [
            _with_motion(thing, rng, cell, zones.count(cell // 2) > 1, _area(rng, len(seen), streams) * shrink)
            for thing, cell in zip(seen, cells, strict=True)
        ]
        if all(thing is not None for thing in placed) and _apart(placed):
            return placed + [thing for thing in things if not thing.on_screen]
    return place(things, streams, attempt + 1000)  # another stream, and the smallest objects


def _timbre(rng: np.random.Generator, shifted: bool) -> np.ndarray:
    """Training hears the middle of every range, `test-shift` the ends."""
    unit = rng.random(4)
    if shifted:
        return np.where(unit < 0.5, unit * 0.4, 0.8 + (unit - 0.5) * 0.4)
    return 0.2 + 0.6 * unit


def _area(rng: np.random.Generator, num_seen: int, streams: Streams) -> float:
    if streams.shifted:
        small, large = SHIFT_AREA
        low, high = small if num_seen > 3 or rng.random() < 0.5 else large
    else:
        low, high = CROWDED_AREA if num_seen > 3 else AREA
    return rng.uniform(low, high)


def _intervals(rng: np.random.Generator) -> tuple[tuple[float, float], ...]:
    if rng.random() >= TWO_INTERVALS:
        return (_interval(rng, 2.0, 4.2),)
    while True:
        first, second = sorted((_interval(rng, 1.2, 2.3), _interval(rng, 1.2, 2.3)))
        if second[0] - first[1] >= 1.0:
            return first, second


def _interval(rng: np.random.Generator, shortest: float, longest: float) -> tuple[float, float]:
    while True:
        start, stop = np.sort(rng.integers(0, NUM_FRAMES, 2)) + np.array([_off_grid(rng), _off_grid(rng)])
        if shortest <= stop - start <= longest:
            return float(start), float(stop)


def _off_grid(rng: np.random.Generator) -> float:
    part = rng.uniform(*OFF_GRID)
    return part if rng.random() < 0.5 else 1.0 - part


def _with_motion(thing: Thing, rng: np.random.Generator, cell: int, shared: bool, area: float) -> Thing | None:
    """The thing at work in one of six cells (three places, upper or lower row), swaying slowly; None if too large."""
    half = float(np.sqrt(area / looks.box_area(thing.name)))
    reach = 1.0 + half * looks.REACH
    sway_x, sway_y = rng.uniform(0.0, 3.5), rng.uniform(0.0, 4.5)
    # Inside the place's range with one pixel to spare: the drawn centroid is checked in `world`.
    low, high = ((0.0, 27.4), (37.0, 59.0), (68.6, 96.0))[cell // 2]
    low, high = max(low, reach) + sway_x, min(high, IMAGE_SIZE - reach) - sway_x
    top, bottom = reach + sway_y, IMAGE_SIZE - reach - sway_y
    if shared:
        top, bottom = (top, 0.5 * IMAGE_SIZE - 6) if cell % 2 == 0 else (0.5 * IMAGE_SIZE + 6, bottom)
    if low > high or top > bottom:
        return None
    seconds = np.arange(NUM_FRAMES) + 0.5
    return dataclasses.replace(
        thing,
        half=half,
        x=rng.uniform(low, high) + sway_x * _wave(rng, seconds),
        y=rng.uniform(top, bottom) + sway_y * _wave(rng, seconds),
        tilt=rng.uniform(-0.12, 0.12) + rng.uniform(0.0, 0.12) * _wave(rng, seconds),
        mirrored=bool(rng.random() < 0.5),
        tint=rng.uniform(0.94, 1.06),
    )


def _wave(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * (seconds / rng.uniform(8.0, 20.0) + rng.random()))


def _apart(things: list[Thing]) -> bool:
    """Objects may overlap a little at their rims, never cover one another."""
    for number, one in enumerate(things):
        for other in things[:number]:
            distance = np.hypot(one.x - other.x, one.y - other.y)
            if distance.min() < 0.78 * (one.half + other.half):
                return False
    return True
