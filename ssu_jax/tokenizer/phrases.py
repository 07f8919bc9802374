"""Words and phrases that guide a model, as ids of whatever tokenizer its text tower reads."""

import difflib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from ssu_jax.tokenizer.clip_bpe import CLIPTokenizer
from ssu_jax.tokenizer.words import UNK, Tokenizer
from ssu_jax.types import UserError

_LONGEST = 77  # ids of a phrase, as CLIP's text tower takes them
_NUM_NAMED = 3


def phrase_ids(tokenizer: Tokenizer | CLIPTokenizer, phrases: Sequence[str]) -> Int[np.ndarray, "u l"]:
    """One row a phrase, as short as the longest of them. Raises UserError for words that the tokenizer does not know,
    with the nearest that it knows; CLIP's knows pieces of every word. "Car_horn" is "car horn".
    """
    phrases = [plain(phrase) for phrase in phrases]
    if isinstance(tokenizer, CLIPTokenizer):
        rows = tokenizer.encode(phrases, _LONGEST)
    else:
        rows = np.stack([_known(tokenizer, phrase) for phrase in phrases])
    return rows[:, : np.flatnonzero(rows.any(axis=0))[-1] + 1]


def _known(tokenizer: Tokenizer, phrase: str) -> Int[np.ndarray, "l"]:
    row = tokenizer.encode(phrase, _LONGEST)
    if UNK in row:
        unknown = next(word for word in phrase.split() if UNK in tokenizer.encode(word, _LONGEST))
        near = difflib.get_close_matches(unknown, tokenizer.words, _NUM_NAMED, cutoff=0.0)
        raise UserError(f"the model does not know {unknown!r}: the nearest that it knows are {', '.join(near)}")
    return row


def plain(text: str) -> str:
    """Lower case, single spaces, none of the underscores that names of classes have."""
    return " ".join(text.replace("_", " ").lower().split())
