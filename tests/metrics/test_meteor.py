import itertools
import pathlib
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssu_jax.metrics import meteor


def _score(hypothesis: str, reference: str, **options) -> float:
    return float(meteor.finish(np.array(meteor.statistics((*hypothesis.split(),), [(*reference.split(),)], **options))))


def test_a_part_of_the_reference_hand_worked():
    # the .25 | cat, sat .75 each; matched 1.75 of 1.75 and of the reference's .25 * 3 + .75 * 3 = 3.
    precision, recall = 1.0, 1.75 / 3
    mean = precision * recall / (0.85 * precision + 0.15 * recall)
    expected = mean * (1 - 0.6 * (1 / 3) ** 0.2)  # one chunk, three words
    assert _score("the cat sat", "the cat sat on a mat") == pytest.approx(expected)


def test_fragmentation_hand_worked():
    # Repeated "the": five words match in three chunks, "the dog" | "and" | "the cat".
    assert meteor.align((*"the dog and the cat".split(),), (*"the cat and the dog".split(),)).chunks == 3
    assert _score("the dog and the cat", "the cat and the dog") == pytest.approx(1 - 0.6 * (3 / 5) ** 0.2)


def test_full_match_in_one_chunk_costs_nothing():
    assert _score("the red bell is ringing", "the red bell is ringing") == 1
    # All words of both match, in one chunk, one by its stem.
    stem = (0.25 + 0.75 + 0.6 * 0.75) / 1.75
    assert _score("the bell rings", "the bell ring") == pytest.approx(stem)


def test_stems_count_less_and_function_words_less():
    assert _score("dogs", "dog") == pytest.approx(0.6)
    assert _score("bell", "drum") == 0
    assert _score("", "drum") == 0
    assert _score("the bell x", "the bell y") < _score("red bell x", "red bell y")


def test_every_repeated_word_matches_once():
    pairs, chunks = meteor.align(("the", "the", "the"), ("the", "bell", "the"))
    assert len(pairs) == 2
    assert len({j for _, j in pairs}) == 2
    assert chunks == 2


def test_a_word_that_leads_into_a_longer_chunk_is_preferred():
    # "the" of the hypothesis may take either "the"; only the second one gives a single chunk.
    assert meteor.align(("the", "bell"), ("the", "dog", "hears", "the", "bell")) == (((0, 3), (1, 4)), 1)
    # An exact match is never given up for a stem that would make longer chunks.
    pairs, chunks = meteor.align(("cats", "cat"), ("cat", "cats"))
    assert set(pairs) == {(0, 1), (1, 0)}
    assert chunks == 2


def test_best_reference_counts():
    references = [("a", "dog"), ("the", "bell", "rings")]
    assert meteor.statistics(("the", "bell"), references) == meteor.statistics(("the", "bell"), references[1:])


def test_corpus_score_uses_sums():
    one = meteor.statistics(("the", "bell"), [("the", "bell")])
    other = meteor.statistics(("a", "dog"), [("the", "drum")])
    matched, weight = 1.0, 1.0 + 1.0
    mean = (matched / weight) ** 2 / (matched / weight)
    # The first sentence is whole: its chunk costs nothing. So no chunk is left in the sums.
    assert meteor.finish(np.add(one, other)) == pytest.approx(mean)


def test_a_stuttering_sentence_ends_in_time_and_is_sound():
    words = ("the", "a", "bell", "bells", "is") * 6
    pairs, chunks = meteor.align(words, words[::-1])
    assert len({j for _, j in pairs}) == len({i for i, _ in pairs}) == len(pairs)
    assert len(pairs) == len(words)
    assert chunks <= len(pairs)


sentence = st.lists(st.sampled_from(["the", "bell", "bells", "ring", "ringing", "is"]), max_size=5).map(tuple)


@settings(max_examples=60, deadline=None)
@given(sentence, sentence)
def test_alignment_equals_exhaustive_search(hypothesis, reference):
    def best(i: int, taken: frozenset, pairs: tuple):
        if i == len(hypothesis):
            yield _quality(pairs, hypothesis, reference)
            return
        yield from best(i + 1, taken, pairs)
        for j, _ in meteor._edges(hypothesis[i], reference):
            if j not in taken:
                yield from best(i + 1, taken | {j}, (*pairs, (i, j)))

    pairs, chunks = meteor.align(hypothesis, reference)
    found = _quality(pairs, hypothesis, reference)
    assert found == max(best(0, frozenset(), ()))
    assert chunks == -found[1]


def _quality(pairs, hypothesis, reference) -> tuple:
    weight = sum(1.0 if hypothesis[i] == reference[j] else 0.6 for i, j in pairs)
    chunks = len(pairs) - sum((b[0] - a[0], b[1] - a[1]) == (1, 1) for a, b in itertools.pairwise(pairs))
    return round(weight, 6), -chunks, -sum(abs(i - j) for i, j in pairs)


# What the published tool (meteor-1.5.jar -l en -norm -m "exact stem" -w "1.0 0.6") answered, once.
PUBLISHED = (
    ("the red bell on the left is ringing", "the red bell on the right is ringing", 0.4330443609938043),
    ("the dog and the cat", "the cat and the dog", 0.45827172913153946),
    ("the blue drum in the middle is beating", "the red bell on the left is ringing", 0.07500000000000001),
    ("the bell rings and the dogs bark", "the dog is barking and the bell is ringing", 0.2997094639008661),
    ("the the the bell", "the bell and the drum", 0.26124868602980317),
)


@pytest.mark.parametrize(("hypothesis", "reference", "published"), PUBLISHED)
def test_published_tool(hypothesis, reference, published):
    assert _score(hypothesis, reference) == pytest.approx(published, rel=1e-12)


@pytest.mark.full
def test_equals_the_published_tool_on_random_sentences():
    package = pytest.importorskip("pycocoevalcap.meteor.meteor")
    if not shutil.which("java"):
        pytest.skip("no Java")
    jar = pathlib.Path(package.__file__).with_name(package.METEOR_JAR)
    words = frozenset(zipfile.ZipFile(jar).read("function/english.words").decode().split())
    rng = np.random.default_rng(0)
    plain = ["the", "cat", "dog", "a", "run", "bell", "is", "are", "on", "and", "left", "right", "blue"]
    pairs = []
    for _ in range(1000):
        hypothesis, reference = (rng.choice(plain[: rng.choice([3, 5, 13])], rng.integers(1, 10)) for _ in range(2))
        # One stem match a pair at most: where several words compete for one, the tool drops them all.
        pairs.append(((*hypothesis, "barking"), (*reference, rng.choice(["barks", "barking", "left"]))))
    # A wide beam makes the tool's search exact as well.
    command = ["java", "-jar", jar, *"- - -stdio -l en -norm -x 5000 -m".split(), "exact stem", "-w", "1.0 0.6"]

    def ask(lines: list[str]) -> list[str]:
        run = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
        return run.stdout.splitlines()

    asked = ask([f"SCORE ||| {' '.join(reference)} ||| {' '.join(hypothesis)}" for hypothesis, reference in pairs])
    answers = ask([f"EVAL ||| {' ||| '.join(asked)}"])
    rows = np.array([meteor.statistics(hypothesis, [reference], words) for hypothesis, reference in pairs])
    assert meteor.finish(rows).tolist() == pytest.approx([float(answer) for answer in answers[:-1]], rel=1e-9)
    assert float(meteor.finish(rows.sum(0))) == pytest.approx(float(answers[-1]), rel=1e-9)
