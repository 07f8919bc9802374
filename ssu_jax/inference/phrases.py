"""Phrases that a user asks for, and their rivals, as plain text.

A phrase is known by its words of three kinds: classes, colours and places. Its rivals are the same phrase with one of
these exchanged for another of its kind. A phrase without a class ("red") is asked of every class ("red bell", ...).
"""

import re
from collections.abc import Sequence

from ssu_jax.tokenizer.phrases import plain
from ssu_jax.types import UserError

_KEPT = "\0"  # stands for a comma that parts nothing


def phrases_of(text: str, names: Sequence[str] = ()) -> tuple[str, ...]:
    """The phrases between commas, in lower case, each once. Raises UserError where there are none.

    names: of classes; a comma inside one ("alligators, crocodiles hissing") parts nothing.
    """
    phrases = tuple(dict.fromkeys(part for part in parts_of(plain(text), [plain(name) for name in names]) if part))
    if not phrases:
        raise UserError(
            f"--text {text!r} names nothing: give words with commas between, such as --text 'bell, red dog'"
        )
    return phrases


def parts_of(text: str, names: Sequence[str]) -> list[str]:
    """The parts between commas, those inside one of the names left out."""
    for name in sorted((name for name in names if "," in name), key=len, reverse=True):
        text = text.replace(name, name.replace(",", _KEPT))
    return [part.replace(_KEPT, ",").strip() for part in text.split(",")]


def rivals_of(phrase: str, kinds: Sequence[Sequence[str]]) -> list[str]:
    """The phrase with one word of a kind exchanged for another of that kind.

    A phrase without such a word has the classes (kinds[0]) for rivals with which it shares no word.
    """
    rivals = [
        exchanged(phrase, word, other)
        for kind in kinds
        for word in kind
        if holds(phrase, word)
        for other in kind
        if other != word
    ]
    own = set(phrase.split())
    return rivals or [name for name in kinds[0] if not own & set(name.split())]


def with_class(phrase: str, kinds: Sequence[Sequence[str]]) -> list[str]:
    """The phrase, or of one that has words of other kinds and no class, one phrase for each class."""
    held = [any(holds(phrase, word) for word in kind) for kind in kinds]
    return [f"{phrase} {name}" for name in kinds[0]] if any(held) and not held[0] else [phrase]


def holds(phrase: str, word: str) -> bool:
    """Whether the word, or the name of several words, stands in the phrase."""
    return re.search(_whole(word), phrase) is not None


def exchanged(phrase: str, word: str, other: str) -> str:
    """The phrase with another word in the place of this one."""
    return re.sub(_whole(word), lambda _: other, phrase)


def _whole(word: str) -> str:
    return rf"(?<!\w){re.escape(word)}(?!\w)"
