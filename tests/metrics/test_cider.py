import math

import numpy as np
import pytest

from ssu_jax.metrics import captioning, cider

RINGING = ("the", "bell", "is", "ringing")
BARKING = ("the", "dog", "is", "barking")


def _frequencies(*references, repeats=None):
    return cider.document_frequencies([[r] for r in references], repeats or [1] * len(references))


def test_the_reference_itself_scores_ten():
    frequencies = _frequencies(RINGING, BARKING)
    assert cider.cider_d(RINGING, [RINGING], frequencies) == pytest.approx(10)


def test_hand_worked():
    # Two items. "the", "is" stand in both: idf log(2/2) = 0. "bell", "ringing", "dog", "barking" in one: log 2.
    frequencies = _frequencies(RINGING, BARKING)
    # Hypothesis "the bell is barking" against RINGING. n = 1: vectors (bell, barking) and (bell, ringing).
    one = 0.5
    # n = 2: bigrams "the bell", "bell is", "is barking" against "the bell", "bell is", "is ringing": 2 of 3.
    two = 2 / 3
    # n = 3: "the bell is" of 2 shared, the other trigram is unseen (idf log 2); n = 4: nothing shared.
    three, four = 1 / 2, 0
    value = cider.cider_d(("the", "bell", "is", "barking"), [RINGING], frequencies)
    assert value == pytest.approx(10 * (one + two + three + four) / 4)


def test_length_penalty_and_clipping():
    frequencies = _frequencies(("bell",), ("dog",))
    # n = 1 alone has weight. Hypothesis norm 3 idf, reference norm idf; clipped product idf^2: cosine 1/3.
    value = cider.cider_d(("bell", "bell", "bell"), [("bell",)], frequencies)
    assert value == pytest.approx(10 / 4 * (1 / 3) * math.exp(-(2**2) / (2 * 6**2)))


def test_one_item_and_equal_references_score_zero():
    assert cider.cider_d(RINGING, [RINGING], _frequencies(RINGING)) == 0
    assert cider.cider_d(RINGING, [RINGING], _frequencies(RINGING, repeats=[7])) == 0


def test_repeats_count_as_documents():
    one = _frequencies(RINGING, RINGING, BARKING)
    other = _frequencies(RINGING, BARKING, repeats=[2, 1])
    hypothesis = ("a", "bell", "is", "ringing")
    assert cider.cider_d(hypothesis, [RINGING], one) == cider.cider_d(hypothesis, [RINGING], other)


def test_equals_the_coco_scorer_which_is_cider_d():
    scorer = pytest.importorskip("pycocoevalcap.cider.cider")
    rng = np.random.default_rng(0)
    words = ["the", "red", "blue", "bell", "drum", "dog", "is", "ringing", "on", "left"]
    sentences = [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(60)]
    pairs = list(zip(sentences, rng.permutation(sentences).tolist(), strict=True)) + [(sentences[0], sentences[0])] * 3
    score, each = scorer.Cider().compute_score(
        {i: [reference] for i, (_, reference) in enumerate(pairs)}, {i: [h] for i, (h, _) in enumerate(pairs)}
    )
    column = captioning.COLUMNS.index("cider")
    ours = captioning.score_pairs(pairs)[:, column]
    assert ours == pytest.approx(each, abs=1e-12)
    assert ours.mean() == pytest.approx(score)
    many = [[captioning.tokenize(r)] * 1 + [captioning.tokenize(sentences[i])] for i, (_, r) in enumerate(pairs[:20])]
    _, each = scorer.Cider().compute_score(
        {i: [" ".join(r) for r in references] for i, references in enumerate(many)},
        {i: [pairs[-1 - i][0]] for i in range(20)},
    )
    frequencies = cider.document_frequencies(many, [1] * 20)
    ours = [cider.cider_d(captioning.tokenize(pairs[-1 - i][0]), many[i], frequencies) for i in range(20)]
    assert ours == pytest.approx(each.tolist(), abs=1e-12)
