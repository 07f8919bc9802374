"""The world's sentences, in the style of the paper: colour, object, place and action (our design).

    one source:     The red bell on the left is ringing.
    two sources:    The red bell on the left is ringing and the blue drum in the middle is beating.
    three sources:  A bell, a drum and a siren are sounding.
    none in view:   the empty sentence

Sources are named in alphabetical order of their class.
"""

from typing import NamedTuple

VERBS = {
    "banjo": "playing",
    "bell": "ringing",
    "bird": "singing",
    "clock": "ticking",
    "cricket": "chirping",
    "dog": "barking",
    "drum": "beating",
    "flute": "playing",
    "frog": "croaking",
    "horn": "honking",
    "motor": "running",
    "radio": "talking",
    "siren": "wailing",
    "whistle": "blowing",
}
PLACES = {"left": "on the left", "middle": "in the middle", "right": "on the right"}

# Share of the frame's width at which the centroid of the visible mask must lie. Between the places there
# is a dead zone where no object of the world ever stands.
PLACE_RANGES = {"left": (0.0, 0.30), "middle": (0.37, 0.63), "right": (0.70, 1.0)}


class Mention(NamedTuple):
    """What a sentence says of one source. A sentence about three gives only `name`."""

    name: str
    colour: str = ""
    place: str = ""


def describe(sources: list[Mention]) -> str:
    """The sentence about the sources that sound in the picture, "" when there are none."""
    if not sources:
        return ""
    sources = sorted(sources)
    if len(sources) <= 2:
        text = " and ".join(
            f"the {source.colour} {source.name} {PLACES[source.place]} is {VERBS[source.name]}" for source in sources
        )
    else:
        named = [f"{_article(source.name)} {source.name}" for source in sources]
        text = f"{', '.join(named[:-1])} and {named[-1]} are sounding"
    return f"{text[0].upper()}{text[1:]}."


def place_of(centroid: float) -> str:
    """The place of a centroid (share of the width, 0 left to 1 right); "" in the dead zone."""
    for place, (low, high) in PLACE_RANGES.items():
        if low <= centroid <= high:
            return place
    return ""


def vocabulary(colours: tuple[str, ...]) -> set[str]:
    """Every word and mark that a sentence of the world can hold."""
    words = {"The", "the", "A", "An", "a", "an", "and", "is", "are", "sounding", "on", "in", ",", "."}
    return words | set(PLACES) | set(VERBS) | set(VERBS.values()) | set(colours)


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"
