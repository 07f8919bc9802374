"""CLIP's byte pair encoding (Radford et al. 2021): sentences -> the ids that its text tower was trained on.

The pairs are merged by the `tokenizers` library. What stands around them is openai's: HTML entities resolved,
lower case, runs of white space made one blank, words, single digits and runs of marks apart.

One step of openai's is left out: ftfy, which mends text that was decoded wrongly and straightens curly quotes. No
sentence of AudioCaps' test part changes by it (all ASCII), and 8 of its 49,838 training sentences do, by their quotes.
"""

import gzip
import html
import io
import json
import os
import pathlib
import zlib
from collections.abc import Iterable

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import models, normalizers, pre_tokenizers

from ssu_jax.types import UserError

START, END = "<|startoftext|>", "<|endoftext|>"
PAD = 0  # as openai pads; it is also the id of "!" within a run of marks, which behind the end id says nothing
LENGTH = 77  # positions of every published text tower
VOCABULARY_SIZE = 49408  # of the published vocabulary: 2 x 256 bytes, 48,894 merges, start and end
_LARGEST = 32 * 2**20  # bytes of an unpacked vocabulary; the published one has 3.2 MB
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class CLIPTokenizer:
    """Sentences -> int32 ids. Picklable, so that reader processes can hold it.

    "<|endoftext|>" written in a sentence is text here, whereas openai's tokenizer ends the sentence there.
    """

    def __init__(self, backend: tokenizers.Tokenizer, where: str = "the vocabulary"):
        self.start_id, self.end_id = (backend.token_to_id(name) for name in (START, END))
        if self.start_id is None or self.end_id is None:
            raise UserError(f"CLIP's tokenizer: {where} lacks {START} or {END}, so it is not CLIP's")
        if getattr(backend.model, "end_of_word_suffix", None) != "</w>":
            raise UserError(f"CLIP's tokenizer: {where} has no byte pairs whose words end in </w>, so it is not CLIP's")
        # Whatever a file says of these: older published ones cut or pad, and ids must not hang on that.
        backend.no_truncation()
        backend.no_padding()
        backend.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.encode_special_tokens = True
        self._backend = backend

    @classmethod
    def load(cls, path: str | os.PathLike) -> "CLIPTokenizer":
        """Reads a folder with tokenizer.json, or with vocab.json and merges.txt, or one file: a tokenizer.json or
        openai's bpe_simple_vocab_16e6.txt.gz.

        Raises UserError where there is none of them, or it is damaged or not CLIP's.
        """
        path = pathlib.Path(path)
        if path.is_dir():
            if (path / "tokenizer.json").is_file():
                return cls.load(path / "tokenizer.json")
            if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
                return cls(_from_hub(path / "vocab.json", path / "merges.txt"), where=str(path))
            raise UserError(f"CLIP's tokenizer: {path} holds neither tokenizer.json nor vocab.json with merges.txt")
        if path.suffix == ".gz":
            return cls(_from_openai(path), where=str(path))
        return cls.from_json(_text(path), where=str(path))

    @classmethod
    def from_json(cls, text: str, where: str = "the stored text") -> "CLIPTokenizer":
        """The inverse of `to_json`. Raises UserError if the text is no tokenizer of CLIP's; `where` names it."""
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"CLIP's tokenizer: {where} is not a tokenizer.json") from error
        return cls(backend, where)

    def to_json(self) -> str:
        """The whole tokenizer as the text of a tokenizer.json."""
        return self._backend.to_str()

    @property
    def size(self) -> int:
        """Number of ids in use; 49,408 as published."""
        return self._backend.get_vocab_size()

    def encode(self, texts: str | Iterable[str], length: int = LENGTH) -> Int[np.ndarray, "b l"]:
        """Start, ids, end, zeros; a longer sentence is cut and still ends in the end id. A str is one sentence;
        `length` is at least 2.

        transformers pads with the end id instead of zeros. The text tower reads the first end id and looks only
        backwards, so both give the same embedding.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        rows = np.full((len(texts), length), PAD, np.int32)
        for row, text in zip(rows, texts, strict=True):
            ids = self._backend.encode(_cleaned(text), add_special_tokens=False).ids[: length - 2]
            row[: len(ids) + 2] = [self.start_id, *ids, self.end_id]
        return rows

    def __getstate__(self) -> str:
        return self.to_json()

    def __setstate__(self, text: str) -> None:
        self.__init__(tokenizers.Tokenizer.from_str(text))


def _cleaned(text: str) -> str:
    """Entities are resolved twice, as captions from the web are often escaped twice. Python's lower case, as
    openai's: the backend's differs where it hangs on the neighbours (a final sigma).
    """
    return html.unescape(html.unescape(text)).strip().lower()


def _byte_pairs(vocabulary: dict[str, int], merges: list[tuple[str, str]], where: str) -> tokenizers.Tokenizer:
    try:
        model = models.BPE(
            vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END, fuse_unk=False
        )
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"CLIP's tokenizer: {where} names pairs that are not in its vocabulary") from error
    backend = tokenizers.Tokenizer(model)
    backend.add_special_tokens([name for name in (START, END) if name in vocabulary])
    return backend


def _from_openai(path: pathlib.Path) -> tokenizers.Tokenizer:
    """The file lists merges only, and more than are used: the first fill the vocabulary up to its size."""
    try:
        with gzip.open(path) as file:
            text = io.TextIOWrapper(io.BytesIO(file.read(_LARGEST)), encoding="utf-8").read()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"CLIP's tokenizer: cannot read {path} ({type(error).__name__})") from error
    # Bytes stand as the visible letters of GPT-2's alphabet, in the order of their code points.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    num_merges = VOCABULARY_SIZE - 2 * len(alphabet) - 2
    merges = _pairs(text, num_merges)
    if len(merges) != num_merges:
        raise UserError(f"CLIP's tokenizer: {path} holds {len(merges)} merges, wanted {num_merges}: get it again")
    names = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in merges), START, END]
    return _byte_pairs({name: number for number, name in enumerate(names)}, merges, str(path))


def _from_hub(vocabulary: pathlib.Path, merges: pathlib.Path) -> tokenizers.Tokenizer:
    try:
        table = json.loads(_text(vocabulary))
    except ValueError as error:
        raise UserError(f"CLIP's tokenizer: {vocabulary} is not JSON") from error
    if not isinstance(table, dict) or not all(isinstance(number, int) for number in table.values()):
        raise UserError(f"CLIP's tokenizer: {vocabulary} is not a table of ids")
    return _byte_pairs(table, _pairs(_text(merges)), str(merges))


def _pairs(text: str, limit: int | None = None) -> list[tuple[str, str]]:
    """The merges of a file whose first line is its version."""
    lines = (line.split() for line in text.split("\n")[1 : None if limit is None else limit + 1])
    return [(line[0], line[1]) for line in lines if len(line) == 2]


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"CLIP's tokenizer: cannot read {path} ({type(error).__name__})") from error
