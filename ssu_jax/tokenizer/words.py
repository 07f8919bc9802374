"""Sentences <-> ids: whole words and punctuation marks, case kept, one row of the table each.

Our design: the vocabulary is learned from the training sentences, most frequent first, ties in
alphabetical order, so that the same sentences give the same ids everywhere. A published vocabulary
of pieces of words brings its own decoder (`published.shifted`).
"""

import os
import pathlib
import re
from collections.abc import Iterable

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import models, pre_tokenizers, trainers

from ssu_jax.types import UserError

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")


class Tokenizer:
    """Text <-> int32 ids. Picklable, so that reader processes can hold it."""

    def __init__(self, backend: tokenizers.Tokenizer):
        wrong = [name for number, name in enumerate(SPECIAL) if backend.token_to_id(name) != number]
        if wrong:
            raise UserError(f"tokenizer: {', '.join(SPECIAL)} must be ids 0 to 3, but {wrong[0]} is not")
        self._backend = backend
        self._backend.encode_special_tokens = True  # "[EOS]" written in a caption is text

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learns the `vocab_size` - 4 commonest words; rarer ones become [UNK]."""
        backend = tokenizers.Tokenizer(models.WordLevel(unk_token=SPECIAL[UNK]))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()  # \w+ or a run of marks
        trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=list(SPECIAL), show_progress=False)
        backend.train_from_iterator(captions, trainer)
        return cls(backend)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tokenizer":
        """Reads `tokenizer.json`. Raises UserError if it is missing or no tokenizer."""
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"tokenizer: cannot read {path} ({type(error).__name__})") from error
        return cls.from_json(text, where=str(path))

    @classmethod
    def from_json(cls, text: str, where: str = "the stored text") -> "Tokenizer":
        """The inverse of `to_json`. Raises UserError if the text is no tokenizer; `where` names it."""
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except UserError:
            raise
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"tokenizer: {where} is not a tokenizer file") from error

    def to_json(self) -> str:
        """The whole tokenizer as JSON, the same text for the same vocabulary."""
        return self._backend.to_str(pretty=True)

    def save(self, path: str | os.PathLike) -> None:
        """Writes `tokenizer.json`, seen whole or not at all."""
        path = pathlib.Path(path)
        temporary = path.with_name(f".{path.name}.partial")
        temporary.write_text(self.to_json(), encoding="utf-8")
        os.replace(temporary, path)

    @property
    def size(self) -> int:
        """Number of ids in use, the four special ones included."""
        return self._backend.get_vocab_size()

    @property
    def words(self) -> list[str]:
        """All that has an id, but the special ones; in alphabetical order."""
        return sorted(set(self._backend.get_vocab()) - set(SPECIAL))

    def encode(self, text: str, length: int) -> Int[np.ndarray, "l"]:
        """[BOS] words [EOS] [PAD]...; a longer sentence is cut and still ends in [EOS]; "" is [BOS] [EOS]."""
        ids = self._backend.encode(text, add_special_tokens=False).ids[: length - 2] if text else []
        row = np.full(length, PAD, np.int32)
        row[: len(ids) + 2] = [BOS, *ids, EOS]
        return row

    def decode(self, ids: Iterable[int | np.integer]) -> str:
        """The sentence up to the first [EOS]; inverse of `encode` for known words in plain spacing.

        With a published vocabulary, the inverse for every text that is not cut.
        """
        written = []
        for number in ids:
            if number == EOS:
                break
            if number not in (PAD, BOS):
                written.append(int(number))
        if self._backend.decoder is not None:
            return self._backend.decode(written, skip_special_tokens=False)
        return _join([self._backend.id_to_token(number) or SPECIAL[UNK] for number in written])

    def __getstate__(self) -> str:
        return self.to_json()

    def __setstate__(self, text: str) -> None:
        self.__init__(tokenizers.Tokenizer.from_str(text))


def _join(words: list[str]) -> str:
    text = re.sub(r"\s+([.,;:!?%)\]}]+)(?=\s|$)", r"\1", " ".join(words))
    return re.sub(r"(?<=\w)\s*(['’-])\s*(?=\w)", r"\1", text)
