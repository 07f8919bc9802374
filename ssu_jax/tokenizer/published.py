"""Published vocabularies (byte pairs: GPT-2, Llama, SmolLM2), and the same behind our four special ids.

A published id n becomes n + OFFSET, so that the word table of our model and that of a published language model
differ by a shift. The published end-of-text token becomes an ordinary id, which no sentence holds.
"""

import json
import pathlib
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from ssu_jax.tokenizer.words import SPECIAL, Tokenizer
from ssu_jax.types import UserError

OFFSET = len(SPECIAL)
GPT2_END = "<|endoftext|>"


def shifted(text: str, where: str = "the published tokenizer") -> Tokenizer:
    """Our Tokenizer with the vocabulary of a published tokenizer.json (its text); `where` names it in errors.

    Sentences are cut into the same tokens as there, a first word without a space before it included, and decoded by
    the published decoder. Raises UserError if it is no byte-pair vocabulary, or uses one of our special words.
    """
    try:
        tree = json.loads(text)
        kind, vocabulary, added = tree["model"]["type"], tree["model"]["vocab"], tree["added_tokens"] or []
        words = {*vocabulary, *(each["content"] for each in added)}
        numbers = {*vocabulary.values(), *(each["id"] for each in added)} if kind == "BPE" else set()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"tokenizer: {where} is not a tokenizer file") from error
    if kind != "BPE" or not tree.get("decoder"):
        raise UserError(f"tokenizer: {where} is of type {kind}, wanted a byte-pair vocabulary (BPE) with its decoder")
    if taken := [name for name in SPECIAL if name in words]:
        raise UserError(f"tokenizer: {where} has a word {taken[0]!r}, which is one of ours: take another")
    if numbers != set(range(len(numbers))):
        raise UserError(f"tokenizer: {where} leaves out ids between 0 and {max(numbers)}: it is damaged, get it anew")
    own = {name: number for number, name in enumerate(SPECIAL)}
    tree["model"]["vocab"] = own | {name: number + OFFSET for name, number in vocabulary.items()}
    tree["added_tokens"] = [
        *(_special(name, number) for name, number in own.items()),
        *(each | {"id": each["id"] + OFFSET} for each in added),
    ]
    # Start and end are ours, and so is the length of a row.
    tree |= {"post_processor": None, "truncation": None, "padding": None}
    return Tokenizer.from_json(json.dumps(tree, ensure_ascii=False), where)


def read_folder(folder: pathlib.Path) -> str:
    """Text of the tokenizer.json of a published folder, made of GPT-2's two older files where those stand there alone.

    "" where the folder has neither. Raises UserError for files that are no tokenizer.
    """
    if (folder / "tokenizer.json").exists():
        return read_file(folder / "tokenizer.json")
    pairs = folder / "vocab.json", folder / "merges.txt"
    if not all(path.exists() for path in pairs):
        return ""
    try:
        backend = tokenizers.Tokenizer(models.BPE.from_file(*map(str, pairs)))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"tokenizer: {pairs[0]} and merges.txt are no byte-pair vocabulary: get them anew") from error
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([GPT2_END])
    return backend.to_str(pretty=True)


def read_file(path: pathlib.Path) -> str:
    """Text of a tokenizer.json. Raises UserError if it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        tokenizers.Tokenizer.from_str(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"tokenizer: cannot read {path} ({type(error).__name__})") from error
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"tokenizer: {path} is not a tokenizer file") from error
    return text


def _special(name: str, number: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": name, **flags}
