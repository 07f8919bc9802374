"""What is heard joined to what is seen: AudioSet's 521 classes to the 20 of PASCAL VOC, by a table (our design).

`class_map.json`, read once and checked:

    nouns      VOC class -> [one, several]
    coloured   VOC classes whose sources get a colour word (never people)
    unnamed    AudioSet classes that say nothing to a person: silence, rooms, and the parents of better names
    sounds     in order of preference, each with
                 verb     what the source is doing, e.g. "barking"
                 seen     VOC classes of the source; several where the segmenter mistakes one for the other
                 heard    AudioSet classes, the largest score counts
                 on       score from which on it is heard
                 keep     score that is enough beside a second in which it is heard
                 area     share of the frame that the largest part of the source needs to be taken for it
                 noun     [one, several], where the VOC class is too general ("baby")
                 hides    verbs that are not said beside it: "singing" hides "speaking"

Scores of instruments are low where music is loud (AudioSet's labels rarely name them), so their gates are low too.
"""

import dataclasses
import functools
import importlib.resources
import json

import numpy as np

from ssu_jax.config.published_classes import VOC, audioset


@dataclasses.dataclass(frozen=True)
class Sound:
    """One line of `sounds`, its classes as numbers. source: which of the map's sources makes it."""

    verb: str
    heard: tuple[int, ...]
    on: float
    keep: float
    area: float
    source: int


@dataclasses.dataclass(frozen=True)
class SourceKind:
    """What makes one or several of the sounds. seen: VOC classes. noun: empty where the class seen gives it."""

    seen: tuple[int, ...]
    noun: tuple[str, str] | tuple[()]


@dataclasses.dataclass(frozen=True)
class ClassMap:
    """The table. hides: bool [sounds, sounds], row hides column. nouns: by VOC class. named: bool [521]."""

    sounds: tuple[Sound, ...]
    sources: tuple[SourceKind, ...]
    hides: np.ndarray
    nouns: tuple[tuple[str, str], ...]
    coloured: tuple[bool, ...]
    named: np.ndarray

    def noun_of(self, source: int, seen: int, several: bool) -> str:
        """What to call a source that is seen as a VOC class."""
        return (self.sources[source].noun or self.nouns[seen])[several]


@functools.cache
def class_map() -> ClassMap:
    """The table that ships. Raises ValueError for a name that AudioSet or VOC does not have."""
    text = importlib.resources.files(__package__).joinpath("class_map.json").read_text(encoding="utf-8")
    return read(json.loads(text))


def read(tree: dict) -> ClassMap:
    """The table from its JSON form. Raises ValueError as `class_map`."""
    heard_as, seen_as = ({name: number for number, name in enumerate(names)} for names in (audioset(), VOC))
    kinds: dict[tuple, int] = {}
    sounds = []
    for line in tree["sounds"]:
        kind = (_numbers(line["seen"], seen_as), tuple(line.get("noun", ())))
        source = kinds.setdefault(kind, len(kinds))
        sounds.append(
            Sound(
                line["verb"],
                _numbers(line["heard"], heard_as),
                line["on"],
                line["keep"],
                line.get("area", 0.0),
                source,
            )
        )
    verbs = [sound.verb for sound in sounds]
    hides = np.zeros((len(sounds), len(sounds)), bool)
    for row, line in enumerate(tree["sounds"]):
        if unknown := set(line.get("hides", ())) - set(verbs):
            raise ValueError(f"class map: {line['verb']!r} hides {sorted(unknown)}, which no sound is called")
        hides[row] = [verb in line.get("hides", ()) for verb in verbs]
        hides[row, row] = False  # the baby's laughing hides the person's, not itself
    named = np.ones(len(heard_as), bool)
    named[list(_numbers(tree["unnamed"], heard_as))] = False
    nouns, coloured = tree["nouns"], _numbers(tree["coloured"], seen_as)
    return ClassMap(
        sounds=tuple(sounds),
        sources=tuple(SourceKind(*kind) for kind in kinds),
        hides=hides,
        nouns=tuple(tuple(nouns.get(name, (name, name))) for name in VOC),
        coloured=tuple(number in coloured for number in range(len(VOC))),
        named=named,
    )


def _numbers(names: list[str], known: dict[str, int]) -> tuple[int, ...]:
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"class map: no published class is called {unknown}")
    return tuple(known[name] for name in names)
