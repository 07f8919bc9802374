"""From the phrases that a user asks for to what a model compares its regions with."""

import difflib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool

from ssu_jax.config import Config
from ssu_jax.data.synthetic import looks, sentences
from ssu_jax.inference.phrases import holds, rivals_of, with_class
from ssu_jax.models.guided import Guide
from ssu_jax.models.late_fusion import facts
from ssu_jax.tokenizer import UNK, Tokenizer
from ssu_jax.tokenizer.clip_bpe import CLIPTokenizer
from ssu_jax.tokenizer.phrases import phrase_ids, plain
from ssu_jax.types import UserError

COLOURS = tuple(dict.fromkeys((*looks.COLOURS, *facts.COLOURS)))
PLACES = tuple(sentences.PLACES)
# Texts, and those of them that are asked for, are multiples of these in number: few programs are compiled.
_TEXTS, _ASKED = 64, 8


def check(config: Config) -> None:
    """Raises UserError for a model that cannot compare words with regions; says what it lacks."""
    if config.family != "ssuformer":
        raise UserError(f"--text needs a model whose regions and words share one space; {config.family} has none: "
                        "take --model ssuformer")  # fmt: skip
    wanted = {"seg_only": False, "text_only": False, "mcm": True, "rcc": True}
    if wrong := [f"model.{name}={not value}" for name, value in wanted.items() if getattr(config.model, name) != value]:
        raise UserError("--text needs masks, sentences and region-caption consistency (model.rcc with model.mcm); the "
                        f"checkpoint was trained with {', '.join(wrong)}: take another")  # fmt: skip


def make(phrases: Sequence[str], config: Config, tokenizer: Tokenizer, embed: Callable) -> Guide:
    """embed: (ids [n, l], clip_ids [n, 77] or None) -> [n, k].

    Raises UserError for a word that the model does not know and for a phrase that names no source, with the nearest
    that it knows; and where CLIP's vocabulary is not at hand.
    """
    classes = [plain(name) for name in config.data.classes]
    with_clip = config.model.region_encoder != "cells" and bool(config.model.clip.weights)
    clip_ids = CLIPTokenizer.load(config.model.clip.weights).encode if with_clip else None
    length = config.data.max_text_tokens
    kinds = [
        classes,
        *([word for word in kind if with_clip or _is_known(word, tokenizer)] for kind in (COLOURS, PLACES)),
    ]
    if not with_clip:
        for phrase in phrases:
            _check_known(phrase, kinds, tokenizer)
    asked = list(dict.fromkeys(each for phrase in phrases for each in with_class(phrase, kinds)))
    rivals = [rivals_of(phrase, kinds) for phrase in asked]
    missing = -len(asked) % _ASKED
    asked, rivals = asked + asked[:1] * missing, rivals + [asked[:1]] * missing  # its own rival: names nothing
    texts = list(dict.fromkeys([*classes, *asked, *(text for row in rivals for text in row)]))
    texts += [""] * (-len(texts) % _TEXTS)
    row_of = {text: row for row, text in enumerate(texts)}
    is_rival = np.zeros((len(asked), len(texts)), bool)
    for row, names in zip(is_rival, rivals, strict=True):
        row[[row_of[name] for name in names]] = True
    ids = np.stack([tokenizer.encode(text, length) for text in texts])
    embedded = embed(ids, clip_ids(texts) if clip_ids else None)
    asked_rows, names = (np.array([row_of[text] for text in group], np.int32) for group in (asked, classes))
    return Guide(embedded, asked_rows, is_rival, names, _words_of(classes, tokenizer, config.model.vocab_size))


def _check_known(phrase: str, kinds: Sequence[Sequence[str]], tokenizer: Tokenizer) -> None:
    phrase_ids(tokenizer, phrase.split())
    if not any(holds(phrase, word) for kind in kinds for word in kind):
        near = ", ".join(difflib.get_close_matches(phrase, kinds[0], cutoff=0.0))
        raise UserError(f"--text: {phrase!r} names no source that the model knows; the nearest that it knows: {near}")


def _is_known(word: str, tokenizer: Tokenizer) -> bool:
    return UNK not in tokenizer.encode(word, len(word) + 2)


def _words_of(classes: Sequence[str], tokenizer: Tokenizer, vocab_size: int) -> Bool[np.ndarray, "u v"]:
    """Names that are one word of the table: of a longer one every word may stand in sentences about other things."""
    words = np.zeros((len(classes), vocab_size), bool)
    for row, name in zip(words, classes, strict=True):
        for written in (name, name.capitalize()):
            ids = tokenizer.encode(f" {written}", len(name) + 3)
            ids = ids[ids > UNK]
            row[ids] |= len(ids) == 1
    return words
