"""Published vocabularies behind our special ids, and llama2.c's vocabulary read as byte pairs."""

import csv
import json
import pickle
import struct

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from ssu_jax.tokenizer import BOS, EOS, PAD, SPECIAL, UNK, Tokenizer, llama2c, published
from ssu_jax.types import UserError

TEXT = ["A dog barks while a man talks.", "Rain falls; a dog howls, twice.", "The man's café: naïve!"] * 3
LENGTH = 200


def byte_level() -> tokenizers.Tokenizer:
    """GPT-2's kind, with its end of text as the last id."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXT, trainer)
    backend.add_special_tokens([published.GPT2_END])
    return backend


BACKEND = byte_level()
OURS = published.shifted(BACKEND.to_str())


def test_ids_are_the_published_ones_moved_by_the_offset():
    for text in TEXT:
        row = OURS.encode(text, LENGTH)
        ids = BACKEND.encode(text).ids
        assert row[: len(ids) + 2].tolist() == [BOS, *(number + published.OFFSET for number in ids), EOS]
        assert set(row[len(ids) + 2 :].tolist()) == {PAD}
    assert published.OFFSET == 4
    assert OURS.size == BACKEND.get_vocab_size() + 4
    # A word at the start of a sentence has no space before it and is another one than inside, as published.
    assert OURS.encode("dog", 9)[1] != OURS.encode("a dog", 9)[2]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_any_text_survives(text):
    row = OURS.encode(text, LENGTH)
    assert UNK not in row
    assert OURS.decode(row) == text


def test_special_words_in_a_caption_are_text():
    for text in (*SPECIAL, published.GPT2_END, f"a dog{published.GPT2_END} [EOS] barks"):
        row = OURS.encode(text, LENGTH)
        end = np.flatnonzero(row == EOS)
        assert len(end) == 1
        assert row.max() < OURS.size - 1  # the end of text is the last id
        assert OURS.decode(row) == text


def test_cut_and_strange_rows():
    row = OURS.encode("a dog barks while a dog howls", 5)
    assert row[-1] == EOS
    assert "a dog barks while a dog howls".startswith(OURS.decode(row))
    assert OURS.encode("", 4).tolist() == [BOS, EOS, PAD, PAD]
    assert OURS.decode([BOS, UNK, EOS]) == "[UNK]"
    assert OURS.decode([BOS, 99999, EOS, 7]) == ""
    half = [number + 4 for number in BACKEND.encode("é").ids][:1]
    assert OURS.decode([BOS, *half]) in ("é", "\ufffd")


def test_saved_and_pickled_copies_are_equal(tmp_path):
    OURS.save(tmp_path / "tokenizer.json")
    text = "A naïve dog howls, twice."
    for copy in (
        Tokenizer.load(tmp_path / "tokenizer.json"),
        Tokenizer.from_json(OURS.to_json()),
        pickle.loads(pickle.dumps(OURS)),
    ):
        assert copy.size == OURS.size
        assert copy.encode(text, LENGTH).tolist() == OURS.encode(text, LENGTH).tolist()
        assert copy.decode(copy.encode(text, LENGTH)) == text
        assert copy.to_json() == OURS.to_json()


def test_published_folders(tmp_path):
    assert published.read_folder(tmp_path) == ""
    BACKEND.model.save(str(tmp_path))
    from_pair = published.shifted(published.read_folder(tmp_path))
    assert from_pair.to_json() == OURS.to_json()
    (tmp_path / "tokenizer.json").write_text(BACKEND.to_str())
    assert published.shifted(published.read_folder(tmp_path)).to_json() == OURS.to_json()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="not a tokenizer file"):
        published.read_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "merges.txt").write_text("a b c d\n")
    with pytest.raises(UserError, match="merges.txt"):
        published.read_folder(tmp_path)


def test_vocabularies_that_do_not_fit():
    words = Tokenizer.train(TEXT, 50).to_json()
    with pytest.raises(UserError, match="WordLevel"):
        published.shifted(words)
    with pytest.raises(UserError, match="not a tokenizer file"):
        published.shifted("[1]")
    tree = json.loads(BACKEND.to_str())
    tree["model"]["vocab"]["[PAD]"] = len(tree["model"]["vocab"]) + 1
    with pytest.raises(UserError, match=r"\[PAD\]"):
        published.shifted(json.dumps(tree))
    tree = json.loads(BACKEND.to_str())
    tree["added_tokens"][0]["id"] += 7
    with pytest.raises(UserError, match="leaves out ids"):
        published.shifted(json.dumps(tree))


# llama2.c


def small_vocabulary(pieces=("▁", "a", "b", "ab", "▁a", "abab")):
    special = [("<unk>", 0.0), ("\n<s>\n", 0.0), ("\n</s>\n", 0.0), *((f"<0x{n:02X}>", 0.0) for n in range(256))]
    rows = [*special, *((piece.replace("▁", " "), -float(rank)) for rank, piece in enumerate(pieces))]
    data = struct.pack("<i", 7)
    for text, score in rows:
        data += struct.pack("<fi", score, len(text.encode())) + text.encode()
    return data


def llama2c_encode(pieces: list[llama2c.Piece], text: str) -> list[int]:
    """What run.c describes, word for word: single characters, then always the neighbours of the best score."""
    numbers = {piece.text: number for number, piece in enumerate(pieces)}
    ids = [numbers[" "]] if text else []
    for character in text:
        ids += [numbers[character]] if character in numbers else [byte + 3 for byte in character.encode()]
    while True:
        joined = [numbers.get(pieces[a].text + pieces[b].text) for a, b in zip(ids, ids[1:], strict=False)]
        found = [(pieces[number].score, -place) for place, number in enumerate(joined) if number is not None]
        if not found:
            return ids
        place = -max(found)[1]
        ids[place : place + 2] = [joined[place]]


def test_a_vocabulary_by_hand(tmp_path):
    path = tmp_path / "tok.bin"
    path.write_bytes(small_vocabulary())
    backend = tokenizers.Tokenizer.from_str(llama2c.to_json(path))
    # "ab" is the better piece, so " abab" is " ", "ab", "ab" -> " ", "abab"; "é" and "\n" fall back to bytes.
    assert backend.encode("abab").tokens == ["▁", "abab"]
    assert backend.encode("aé\n").tokens == ["▁a", "<0xC3>", "<0xA9>", "<0x0A>"]
    assert backend.token_to_id("<0x00>") == 3
    assert backend.decode(backend.encode("b a\n é").ids) == "b a\n é"


DAMAGES = {
    "cut": lambda data: data[:-1],
    "cut in the first row": lambda data: data[:9],
    "empty": lambda data: b"",
    "longer": lambda data: data + b"x",
    "a byte twice": lambda data: data.replace(b"<0x41>", b"<0x42>"),
    "noise": lambda data: b"\xff" * 40,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_are_no_vocabulary(tmp_path, damage):
    path = tmp_path / "tok.bin"
    path.write_bytes(DAMAGES[damage](small_vocabulary()))
    with pytest.raises(UserError, match=r"tok\.bin"):
        llama2c.to_json(path)
    with pytest.raises(UserError, match="cannot be read"):
        llama2c.to_json(tmp_path / "none.bin")


@pytest.fixture(scope="module")
def stories(shared):
    path = shared / "data/weights/text/tok512.bin"
    return llama2c.read(path), llama2c.to_json(path)


def test_golden_story(shared, stories):
    golden = json.loads((shared / "data/weights/golden/stories260K_golden.json").read_text())
    backend = tokenizers.Tokenizer.from_str(stories[1])
    text = golden["text"].removeprefix(" ").replace("<0x0A>", "\n")
    assert backend.decode(golden["greedy_ids"]) == text
    assert backend.encode(text).ids == golden["greedy_ids"]
    ours = published.shifted(stories[1])
    assert ours.size == 516
    assert ours.encode(text, 122).tolist() == [BOS, *(number + 4 for number in golden["greedy_ids"]), EOS]
    assert ours.decode(ours.encode(text, 122)) == text


def test_encodes_as_llama2c(shared, stories):
    pieces, text = stories
    backend = tokenizers.Tokenizer.from_str(text)
    with open(shared / "data/annotations/audiocaps/val.csv", encoding="utf-8") as file:
        captions = [row["caption"] for row in csv.DictReader(file)][:300]
    captions += ["", " ", "  two  spaces ", "Zoë – “hush”…", "日本語\t\x00", "aaaa the the", "▁"]
    for caption in captions:
        assert backend.encode(caption).ids == llama2c_encode(pieces, caption.replace("▁", " ")), caption
        assert backend.decode(backend.encode(caption).ids) == caption.replace("▁", " ")
