import math
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssu_jax.metrics import captioning

SENTENCES = (
    "The red bell on the left is ringing.",
    "The red bell on the right is ringing.",
    "The blue drum in the middle is beating.",
    "The blue drum in the middle is beating and the red bell on the left is ringing.",
    "The dog, the frog and the bird are calling.",
    "the the the",
    "A flute.",
)


def test_tokens_are_lower_case_words_without_punctuation():
    assert captioning.tokenize("The red bell, on the left, is ringing!") == (
        *"the red bell on the left is ringing".split(),
    )
    assert captioning.tokenize("") == ()
    assert captioning.tokenize(" . ") == ()


def test_contractions_hyphens_numbers_and_abbreviations():
    words = "the man 's dog is n't barking they can not hear 3.5 half-second beeps at 10:30 a.m."
    sentence = "The man's dog isn't barking; they cannot hear 3.5 half-second beeps at 10:30 a.m."
    assert captioning.tokenize(sentence) == (*words.split(),)
    assert captioning.tokenize("“It’s”") == ("it", "'s")


def test_bleu_hand_worked():
    # "the" twice in the hypothesis, once in the reference: clipped. Bigrams: "the cat", "cat the" -> 1 of 2.
    row = captioning.bleu_counts(("the", "cat", "the"), [("the", "cat", "sat", "down")])
    assert row == [2, 1, 0, 0, 3, 2, 1, 0, 3, 4]
    scores = captioning.finish(captioning.score_pairs([("the cat the", "the cat sat down")]).sum(0))
    brevity = math.exp(1 - 4 / 3)
    assert scores["bleu_1"] == pytest.approx(2 / 3 * brevity)
    assert scores["bleu_2"] == pytest.approx(math.sqrt(2 / 3 * 1 / 2) * brevity)
    assert scores["bleu_3"] < 1e-4


def test_bleu_closest_length_and_most_generous_reference():
    references = [("a", "b"), ("a", "a", "c", "d", "e"), ("a", "b", "c", "d")]
    counts = captioning.bleu_counts(("a", "a", "b"), references)
    assert counts[0] == 3  # "a" twice (second reference), "b" once
    assert counts[-1] == 2  # 2 and 4 are equally close: the shorter


def test_corpus_bleu_is_a_ratio_of_sums():
    pairs = [("the cat", "the cat"), ("a b c d", "e f g h")]
    scores = captioning.finish(captioning.score_pairs(pairs).sum(0))
    assert scores["bleu_1"] == pytest.approx(2 / 6)  # the mean of sentence scores would be 1/2


def test_rouge_l_hand_worked():
    # Longest common subsequence "the cat down", 3 of 4 words and 3 of 5.
    value = captioning.rouge_l(("the", "black", "cat", "down"), [("the", "cat", "sat", "right", "down")])
    precision, recall = 3 / 4, 3 / 5
    assert value == pytest.approx((1 + 1.44) * precision * recall / (recall + 1.44 * precision))
    assert captioning.rouge_l(("a", "b"), [("b", "a")]) == pytest.approx(0.5)  # order matters
    assert captioning.rouge_l((), [("a",)]) == 0


def test_exact_match_wants_the_very_sentence():
    pairs = [("A bell.", "A bell."), ("a bell", "A bell."), (" A bell. ", "A bell."), ("", "A bell.")]
    assert captioning.finish(captioning.score_pairs(pairs).sum(0))["exact_match"] == 0.5


def test_right_sentences_score_one_and_silence_scores_zero():
    right = captioning.finish(captioning.score_pairs([(s, s) for s in SENTENCES]).sum(0))
    for name in ("exact_match", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor"):
        assert right[name] == pytest.approx(1), name
    wrong = captioning.finish(captioning.score_pairs([("", s) for s in SENTENCES]).sum(0))
    assert all(wrong[name] == pytest.approx(0, abs=1e-9) for name in captioning.SCORES)


def test_nothing_scored_is_not_a_number():
    scores = captioning.finish(np.zeros(len(captioning.COLUMNS)))
    assert set(scores) == set(captioning.SCORES)
    assert all(np.isnan(value) for value in scores.values())


def test_equal_pairs_are_scored_as_if_apart():
    pairs = [(SENTENCES[0], SENTENCES[1])] * 3 + [(SENTENCES[2], SENTENCES[2])]
    rows = captioning.score_pairs(pairs)
    assert rows.shape == (4, len(captioning.COLUMNS))
    assert (rows[0] == rows[1]).all()
    assert (rows[0] == rows[2]).all()


pair_lists = st.lists(st.tuples(st.sampled_from(SENTENCES), st.sampled_from(SENTENCES)), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(pair_lists, st.randoms())
def test_order_of_the_frames_changes_nothing(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    one = captioning.finish(captioning.score_pairs(pairs).sum(0))
    other = captioning.finish(captioning.score_pairs(shuffled).sum(0))
    for name in captioning.SCORES:
        assert one[name] == pytest.approx(other[name], rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(pair_lists)
def test_ranges(pairs):
    scores = captioning.finish(captioning.score_pairs(pairs).sum(0))
    assert all(-1e-9 <= scores[name] <= (10 if name == "cider" else 1) + 1e-9 for name in captioning.SCORES)


@settings(max_examples=30, deadline=None)
@given(pair_lists)
def test_bleu_and_rouge_equal_the_coco_scorers(pairs):
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    references = {i: [" ".join(captioning.tokenize(r))] for i, (_, r) in enumerate(pairs)}
    hypotheses = {i: [" ".join(captioning.tokenize(h))] for i, (h, _) in enumerate(pairs)}
    ours = captioning.finish(captioning.score_pairs(pairs).sum(0))
    theirs, _ = bleu.Bleu(4).compute_score(references, hypotheses, verbose=0)
    assert [ours[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(theirs, rel=1e-9)
    assert ours["rouge_l"] == pytest.approx(rouge.Rouge().compute_score(references, hypotheses)[0], rel=1e-12)


def test_several_references_equal_the_coco_scorers():
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    hypothesis, references = SENTENCES[0], SENTENCES[1:5]
    tokens, many = captioning.tokenize(hypothesis), [captioning.tokenize(r) for r in references]
    truth, answer = {0: [" ".join(r) for r in many]}, {0: [" ".join(tokens)]}
    counts = captioning.bleu_counts(tokens, many)
    sums = np.zeros(len(captioning.COLUMNS))
    sums[0], sums[2 : 2 + len(counts)] = 1, counts
    ours = captioning.finish(sums)
    theirs = bleu.Bleu(4).compute_score(truth, answer, verbose=0)[0]
    assert [ours[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(theirs)
    assert captioning.rouge_l(tokens, many) == pytest.approx(rouge.Rouge().compute_score(truth, answer)[0])


@pytest.mark.full
def test_tokens_equal_the_penn_treebank_tokenizer(tmp_path):
    package = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if not shutil.which("java"):
        pytest.skip("no Java")
    sentences = (
        *SENTENCES,
        "The man's dog isn't barking, and it's asleep!",
        "They cannot hear 3.5 seconds, 1,000 beeps at 10:30.",
        "Don't you'll we've I'm he'd they're gonna wanna gotta",
        "The U.S. car at 5 p.m. is honking; a half-second beep - twice...",
        "Mr. Smith's guitar/violin & drum cost $5 - text-to-speech",
        "I can't won't let's e-mail my mother-in-law 1/2",
    )
    (tmp_path / "sentences.txt").write_text("\n".join(sentences))
    jar = pathlib.Path(package.__file__).with_name(package.STANFORD_CORENLP_3_4_1_JAR)
    command = ["java", "-cp", jar, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    run = subprocess.run([*command, tmp_path / "sentences.txt"], capture_output=True, text=True, check=True)
    for sentence, line in zip(sentences, run.stdout.splitlines(), strict=True):
        kept = tuple(word for word in line.split() if word not in package.PUNCTUATIONS)
        assert captioning.tokenize(sentence) == kept
