"""llama2.c's vocabulary file (tok512.bin, tokenizer.bin) -> tokenizer.json.

The file, all little endian: int32 length of the longest piece, then for every id a float32 score, an int32 length and
that many bytes of UTF-8. Ids 0, 1, 2 are unknown, start and end, ids 3 to 258 the 256 bytes ("<0x0A>"), and the rest
pieces with their spaces. Its encoder (run.c) puts a space before the text, takes single characters, or the bytes of
those that are no piece, and joins the neighbours that make the piece of the best score until none is left. As byte
pairs with ranks that is: every way to cut a piece into two pieces is a merge, in the order of the scores.
"""

import os
import pathlib
import struct
from typing import NamedTuple

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers

from ssu_jax.types import UserError

NUM_BYTES = 256
SPECIAL = ("<unk>", "<s>", "</s>")
FIRST_PIECE = len(SPECIAL) + NUM_BYTES
SPACE = "▁"


class Piece(NamedTuple):
    """One row of the file."""

    text: str
    score: float


def read(path: str | os.PathLike) -> list[Piece]:
    """The rows in the order of their ids. Raises UserError if the file is missing or no such vocabulary."""
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"vocabulary {path} cannot be read: {error.strerror}") from error
    wrong = UserError(f"vocabulary {path} is not one of llama2.c, or damaged: get it anew")
    pieces, at = [], 4
    try:
        (longest,) = struct.unpack_from("<i", data)
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            text = data[at + 8 : at + 8 + length]
            if not 0 <= length <= max(longest, 7) or len(text) != length:
                raise wrong
            pieces.append(Piece(text.decode("utf-8"), score))
            at += 8 + length
    except (struct.error, UnicodeDecodeError) as error:
        raise wrong from error
    texts = [piece.text for piece in pieces]
    if texts[len(SPECIAL) : FIRST_PIECE] != [_byte(value) for value in range(NUM_BYTES)]:
        raise wrong
    if len({*SPECIAL, *texts[len(SPECIAL) :]}) < len(texts):
        raise wrong
    return pieces


def to_json(path: str | os.PathLike) -> str:
    """Text of a tokenizer.json that encodes as llama2.c does, and decodes without the space at the front."""
    pieces = read(path)
    names = [*SPECIAL, *(piece.text.replace(" ", SPACE) for piece in pieces[len(SPECIAL) :])]
    vocabulary = {name: number for number, name in enumerate(names)}
    model = models.BPE(
        vocab=vocabulary,
        merges=_merges(names, [piece.score for piece in pieces]),
        unk_token=SPECIAL[0],
        byte_fallback=True,
        fuse_unk=True,
    )
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIAL])
    return backend.to_str(pretty=True)


def _merges(names: list[str], scores: list[float]) -> list[tuple[str, str]]:
    known = set(names[FIRST_PIECE:])
    order = sorted(range(FIRST_PIECE, len(names)), key=lambda number: (-scores[number], number))
    cuts = ((names[number][:at], names[number][at:]) for number in order for at in range(1, len(names[number])))
    return [(left, right) for left, right in cuts if left in known and right in known]


def _byte(value: int) -> str:
    return f"<0x{value:02X}>"
