"""CLIP's ids: a made-up vocabulary by hand, and the published one against transformers and known ids."""

import csv
import gzip
import json
import pickle
import zlib

import numpy as np
import pytest
from tokenizers import pre_tokenizers

from ssu_jax.tokenizer.clip_bpe import END, START, VOCABULARY_SIZE, CLIPTokenizer
from ssu_jax.types import UserError

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())  # "!" is the first, "a" the 65th
HARD_LINES = [
    "It's 2024, isn't it? They'll say we've, I'd and I'm: you're!",
    "rock'n'roll 's ''quoted'' don''t",
    "naïve café — “curly” ‘quotes’ …",
    "日本語のテスト 한국어 텍스트 Привет МИР ΑΓΟΡΑ السلام عليكم",
    "🐶🎸 barks!!! 👩‍👩‍👧‍👦 ❤️",
    "x=3.14159; 1,000,000 ½ ² Ⅳ ﬁ",
    "tabs\tand\nlines   many \u00a0 \u2003 blanks",
    "İstanbul STRASSE ß",
    "e\u0301 and é are one",
    "#@$%^&*()_+{}|:<>?~`[]\\",
    "a" * 300,
    "word " * 100,
    "",
    "   ",
]


def letter(a: str) -> int:
    return LETTERS.index(a)


def last(a: str) -> int:
    return 256 + LETTERS.index(a)


@pytest.fixture(scope="module")
def openai_file(tmp_path_factory):
    """In the form of openai's file: more merges than are used, each of a letter with a last letter, in order."""
    lines = ["version"] + [f"{a} {b}</w>" for a in LETTERS for b in LETTERS]
    path = tmp_path_factory.mktemp("clip") / "merges.txt.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


@pytest.fixture(scope="module")
def made_up(openai_file) -> CLIPTokenizer:
    return CLIPTokenizer.load(openai_file)


@pytest.fixture(scope="module")
def published(shared) -> CLIPTokenizer:
    return CLIPTokenizer.load(shared / "data/tokenizers/clip_bpe_simple_vocab_16e6.txt.gz")


@pytest.fixture(scope="module")
def captions(shared) -> list[str]:
    with open(shared / "data/annotations/audiocaps/test.csv", encoding="utf-8", newline="") as file:
        return [row["caption"] for row in csv.DictReader(file)][:1000]


def pad(ids: list[int], length: int) -> list[int]:
    return ids + [0] * (length - len(ids))


def test_ids_by_hand(made_up):
    assert (made_up.size, made_up.start_id, made_up.end_id) == (VOCABULARY_SIZE, 49406, 49407)
    ids = made_up.encode(["it", "A fit 7?", ""], length=9)
    assert ids.dtype == np.int32
    merged = 512 + 256 * letter("i") + letter("t")  # the 72 * 256 + 83rd merge
    fit = [letter("f"), merged]
    assert ids.tolist() == [
        pad([49406, merged, 49407], 9),
        pad([49406, last("a"), *fit, last("7"), last("?"), 49407], 9),
        pad([49406, 49407], 9),
    ]
    assert made_up.encode("it").shape == (1, 77)
    assert made_up.encode([]).shape == (0, 77)


def test_a_long_sentence_is_cut_and_still_ends(made_up):
    ids = made_up.encode(["a " * 100, "a " * 3, "a " * 4], length=5)
    assert ids.tolist() == [[49406, *[last("a")] * 3, 49407]] * 3


def test_text_is_cleaned_as_openai_does(made_up):
    def same(a, b):
        np.testing.assert_array_equal(made_up.encode(a), made_up.encode(b))

    same("  It \t\n is ", "it is")
    same("cat &amp; dog", "cat & dog")
    same("&amp;lt;b&amp;gt;", "<b>")
    same("ΟΔΟΣ", "οδο\u03c2")  # the sigma at the end of a word
    same("cafe\u0301", "café")
    same("don't", "don 't")
    same("ab12", "ab 1 2")


def test_special_tokens_in_a_sentence_are_text(made_up):
    ids = made_up.encode(f"a {END} b {START}", length=40)[0]
    assert (ids == 49407).sum() == 1
    assert (ids == 49406).sum() == 1
    np.testing.assert_array_equal(ids, made_up.encode("a <| endoftext |> b <| startoftext |>", length=40)[0])


def test_every_form_of_the_vocabulary_gives_the_same_ids(made_up, tmp_path):
    lines = ["It's a fit, 12 times!", "naïve 🐶", "x" * 90]
    wanted = made_up.encode(lines)
    model = json.loads(made_up.to_json())["model"]

    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "vocab.json").write_text(json.dumps(model["vocab"]))
    (hub / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]) + "\n")
    np.testing.assert_array_equal(CLIPTokenizer.load(hub).encode(lines), wanted)

    # A tokenizer.json speaks before the other two, and what it says of cutting, padding and splitting does not count.
    content = json.loads(made_up.to_json())
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {"strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 49407,
                          "pad_type_id": 0, "pad_token": END}  # fmt: skip
    content["pre_tokenizer"] = content["normalizer"] = None
    (hub / "tokenizer.json").write_text(json.dumps(content))
    (hub / "vocab.json").write_text("damaged")
    np.testing.assert_array_equal(CLIPTokenizer.load(hub).encode(lines), wanted)
    np.testing.assert_array_equal(CLIPTokenizer.load(hub / "tokenizer.json").encode(lines), wanted)

    again = pickle.loads(pickle.dumps(made_up))
    np.testing.assert_array_equal(again.encode(lines), wanted)
    assert CLIPTokenizer.from_json(made_up.to_json()).to_json() == made_up.to_json()


def test_files_that_will_not_do_are_refused(openai_file, tmp_path):
    def refused(name: str, content: bytes, message: str):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            CLIPTokenizer.load(path if "hub" not in name else path.parent)
        assert str(tmp_path) in str(error.value)
        assert "\n" not in str(error.value)

    packed = openai_file.read_bytes()
    refused("cut.gz", packed[:5000], "EOFError")
    refused("flipped.gz", packed[:3000] + bytes([packed[3000] ^ 255]) + packed[3001:], "cannot read")
    refused("plain.gz", b"no archive", "BadGzipFile")
    refused("few.gz", gzip.compress(b"version\na b</w>\n"), "holds 1 merges, wanted 48894")
    refused("latin.gz", gzip.compress(b"\xff\xfe"), "UnicodeDecodeError")
    refused("tokenizer.json", b"{}", "not a tokenizer.json")
    refused("binary.json", b"\xff\x00", "cannot read")
    word_level = {"type": "WordLevel", "vocab": {"a": 0, START: 1, END: 2}, "unk_token": END}
    other = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
             "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": word_level}  # fmt: skip
    refused("words.json", json.dumps(other).encode(), "not CLIP's")
    word_level["vocab"] = {"a": 0, END: 1}
    refused("lacking.json", json.dumps(other).encode(), "lacks")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "merges.txt").write_text("#version: 0.2\na b\n")
    refused("hub/vocab.json", b"[1]", "not a table of ids")
    refused("hub/vocab.json", b"{", "not JSON")
    refused("hub/vocab.json", json.dumps({"a": 0, START: 1, END: 2}).encode(), "not in its vocabulary")
    (tmp_path / "empty").mkdir()
    for missing in (tmp_path / "none", tmp_path / "none.gz", tmp_path / "empty"):
        with pytest.raises(UserError, match=r"cannot read|holds neither"):
            CLIPTokenizer.load(missing)


def test_published_ids(published, captions):
    """Ids that openai's own examples show, and a check sum of those of 1,000 captions as transformers gives them."""
    assert published.size == VOCABULARY_SIZE
    ids = published.encode(["a diagram", "hello world!", "a photo of a cat"], length=7)
    assert ids.tolist() == [
        [49406, 320, 22697, 49407, 0, 0, 0],
        [49406, 3306, 1002, 256, 49407, 0, 0],
        [49406, 320, 1125, 539, 320, 2368, 49407],
    ]
    assert zlib.crc32(published.encode(captions).astype("<i4").tobytes()) == 4144145250


def test_equal_to_transformers_on_captions_and_hard_lines(published, captions):
    transformers = pytest.importorskip("transformers")
    model = json.loads(published.to_json())["model"]
    judge = transformers.CLIPTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    assert len(captions) == 1000
    for lines in (captions, HARD_LINES):
        theirs = judge(lines, truncation=True, max_length=77)["input_ids"]
        wanted = np.zeros((len(lines), 77), np.int32)
        for row, ids in zip(wanted, theirs, strict=True):
            row[: len(ids)] = ids
        np.testing.assert_array_equal(published.encode(lines), wanted)
