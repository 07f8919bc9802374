"""Facts of a second <-> a row of numbers, and the sentence that the facts make. Templates are in templates.json.

A row is what word ids are to a text decoder: the model returns it, `Sentences.decode` reads it.
"""

import dataclasses
import functools
import importlib.resources
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from ssu_jax.config.late_fusion import LateFusionConfig
from ssu_jax.config.published_classes import audioset
from ssu_jax.models.late_fusion.class_map import ClassMap, class_map
from ssu_jax.models.late_fusion.facts import COLOURS, PLACES

SOURCE_COLUMNS, SOUND_COLUMNS = 7, 2


class Row(NamedTuple):
    """sources int32 [..., q, 7]: 1 + source of the class map (0: none), 1 + sound, 1 + second sound (0: none), VOC
    class, parts, place, 1 + colour (0: none). sounds int32 [..., h, 2]: 1 + AudioSet class (0: none), whether seen.
    """

    sources: Any
    sounds: Any


def pack(row: Row) -> Any:
    """int32 [b, l], l = 7 q + 2 h."""
    import jax.numpy as jnp

    return jnp.concatenate([part.reshape(len(part), -1) for part in row], 1)


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Reads the rows of a LateFusion model with this configuration."""

    config: LateFusionConfig

    def decode(self, facts: Sequence[int] | Int[np.ndarray, "l"]) -> str:
        """The sentence of one second, "" where nothing in the picture sounds."""
        sources, _ = self._split(facts)
        return _sentence([_clause(row, class_map()) for row in sources if row[0]])

    def sounds(self, facts: Sequence[int] | Int[np.ndarray, "l"]) -> list[tuple[str, bool]]:
        """(AudioSet's name, whether its source is in the picture) of what is heard in one second."""
        _, sounds = self._split(facts)
        return [(audioset()[number - 1], bool(seen)) for number, seen in sounds if number]

    def _split(self, facts: Sequence[int] | Int[np.ndarray, "l"]) -> tuple[np.ndarray, np.ndarray]:
        facts, end = np.asarray(facts), -SOUND_COLUMNS * self.config.max_sounds
        return facts[:end].reshape(-1, SOURCE_COLUMNS), facts[end:].reshape(-1, SOUND_COLUMNS)


def _clause(row: np.ndarray, table: ClassMap) -> str:
    source, verb, other_verb, seen, parts, place, colour = map(int, row)
    words, several = _templates(), parts > 1
    verbs = [table.sounds[number - 1].verb for number in (verb, other_verb) if number]
    return words["clause"][several].format(
        noun=table.noun_of(source - 1, seen, several),
        colour=f"{COLOURS[colour - 1]} " if colour else "",
        place=words["places"][PLACES[place]],
        verb=words["and"].join(verbs),
    )


def _sentence(clauses: list[str]) -> str:
    words = _templates()
    if not clauses:
        return ""
    *first, last = clauses
    joined = words["and"].join([words["comma"].join(first), last]) if first else last
    return words["sentence"].format(text=joined[0].upper() + joined[1:])


@functools.cache
def _templates() -> dict[str, Any]:
    return json.loads(importlib.resources.files(__package__).joinpath("templates.json").read_text(encoding="utf-8"))
