"""METEOR 1.5 (Denkowski and Lavie 2014) with the exact and Snowball-stem modules.

    P, R  = sum of module weights over matched words / all words; a content word counts delta,
            a function word 1 - delta, on the hypothesis' side (P) and on the reference's (R)
    F     = P R / (alpha P + (1 - alpha) R)
    score = F (1 - gamma (chunks / matches)^beta)

The corpus score puts summed statistics into the same formula, as the published tool does. Where a
hypothesis is its reference word for word, its single chunk costs nothing.

Three deviations from the published tool:

- It has synonym and paraphrase modules, which need large tables; we have not.
- Its English function words are those above a relative frequency of 1e-3 in a large corpus; ours are the
  closed-class words below (our design), chosen by their grammar. Other words can be passed in.
- It searches alignments with a beam of 40 and drops stem matches that several words compete for; ours finds
  the alignment that the paper defines. Where neither happens, the tests find equal scores, given its words.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import snowballstemmer
from jaxtyping import Float

Tokens = tuple[str, ...]

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.20, 0.60, 0.75
EXACT_WEIGHT, STEM_WEIGHT = 1.0, 0.6

FUNCTION_WORDS = frozenset(
    """
    a an the this that these those
    and or but nor if so as than while
    of to in on at by for from with into over out up about after before
    i you he she it we they me him her us them my your his its our their who which what
    is are was were be been being am has have had do does did will would can could not n't no 's
    there when where all some other one two also more
    """.split()  # noqa: SIM905 (twelve lines shorter)
)

COLUMNS = (
    "hypothesis_matched",  # weighted, the numerator of P
    "hypothesis_weight",  # its denominator
    "reference_matched",  # weighted, the numerator of R
    "reference_weight",
    "matches",  # words, unweighted
    "chunks",
)

# The search is exact as long as it holds fewer states; only sentences that repeat several words many times
# have more, and then the best ones are kept.
_MAX_STATES = 200


class Alignment(NamedTuple):
    """Matched pairs of positions in the order of the hypothesis, and the runs that are contiguous in both."""

    pairs: tuple[tuple[int, int], ...]
    chunks: int


def statistics(
    hypothesis: Tokens, references: Sequence[Tokens], function_words: frozenset[str] = FUNCTION_WORDS
) -> tuple[float, ...]:
    """The row of `COLUMNS` of one item, against the reference that scores best."""
    rows = [_statistics(hypothesis, reference, function_words) for reference in references]
    if len(rows) == 1:
        return rows[0]
    return max(rows, key=lambda row: float(finish(np.asarray(row))))


def finish(sums: Float[np.ndarray, "... 6"]) -> np.ndarray:
    """Scores of the leading shape from (summed) rows of `COLUMNS`; 0 where nothing matches."""
    matched, weight, reference_matched, reference_weight, matches, chunks = np.moveaxis(
        np.asarray(sums, np.float64), -1, 0
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = matched / weight, reference_matched / reference_weight
        mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
        penalty = GAMMA * (chunks / matches) ** BETA
        # 0 / 0 in `mean`: words matched, yet all of weight 0 or none at all.
        return np.where((matches > 0) & (mean > 0), mean * (1 - penalty), 0.0)


def align(hypothesis: Tokens, reference: Tokens) -> Alignment:
    """The one-to-one alignment with the largest total module weight, then the fewest chunks, then the
    smallest sum of distances between matched positions.

    Repeated words make many alignments possible. The search walks the hypothesis from left to right and
    keeps the best way to every state: which positions of the reference are taken (as far as a later word
    could still want them), and which one the last word took, since only that decides whether a chunk goes on.
    A word that the reference has as often as the hypothesis matches itself in every best alignment: such words
    have no other choice, which keeps the states few.
    """
    surplus = Counter(hypothesis) - Counter(reference)
    edges = [_edges(word, reference, surplus[word] > 0) for word in hypothesis]
    wanted_later = [0] * (len(edges) + 1)
    for position in range(len(edges) - 1, -1, -1):
        wanted_later[position] = wanted_later[position + 1] | sum(1 << j for j, _ in edges[position])
    # state -> ((weight, -chunks, -distance), pairs)
    states = {(0, -2): ((0.0, 0, 0), ())}
    for position, options in enumerate(edges):
        reached: dict = {}
        for (taken, last), (score, pairs) in states.items():
            if not options or surplus[hypothesis[position]]:
                _keep_best(reached, (taken & wanted_later[position + 1], -2), score, pairs)
            for j, weight in options:
                if taken >> j & 1:
                    continue
                following = (
                    score[0] + weight,
                    score[1] - (j != last + 1),
                    score[2] - abs(position - j),
                )
                key = ((taken | 1 << j) & wanted_later[position + 1], j)
                _keep_best(reached, key, following, (*pairs, (position, j)))
        states = reached if len(reached) <= _MAX_STATES else _prune(reached)
    score, pairs = max(states.values())
    return Alignment(pairs, -score[1])


def _statistics(hypothesis: Tokens, reference: Tokens, function_words: frozenset[str]) -> tuple[float, ...]:
    if hypothesis == reference:
        weight = _weight(hypothesis, function_words)
        return (weight, weight, weight, weight, float(len(hypothesis)), 0.0)
    pairs, chunks = align(hypothesis, reference)
    module = [EXACT_WEIGHT if hypothesis[i] == reference[j] else STEM_WEIGHT for i, j in pairs]
    matched = sum(w * _weight((hypothesis[i],), function_words) for w, (i, _) in zip(module, pairs, strict=True))
    recalled = sum(w * _weight((reference[j],), function_words) for w, (_, j) in zip(module, pairs, strict=True))
    is_whole = len(pairs) == len(hypothesis) == len(reference) and chunks == 1
    return (
        matched,
        _weight(hypothesis, function_words),
        recalled,
        _weight(reference, function_words),
        float(len(pairs)),
        0.0 if is_whole else float(chunks),
    )


def _weight(tokens: Tokens, function_words: frozenset[str]) -> float:
    return sum(1 - DELTA if token in function_words else DELTA for token in tokens)


def _edges(word: str, reference: Tokens, with_stems: bool = True) -> list[tuple[int, float]]:
    """(position, module weight) of every word of the reference that `word` may match."""
    edges = []
    for j, other in enumerate(reference):
        if word == other:
            edges.append((j, EXACT_WEIGHT))
        elif with_stems and _stem(word) == _stem(other):
            edges.append((j, STEM_WEIGHT))
    return edges


def _keep_best(states: dict, key: tuple, score: tuple, pairs: tuple) -> None:
    if key not in states or states[key][0] < score:
        states[key] = (score, pairs)


def _prune(states: dict) -> dict:
    best = sorted(states.items(), key=lambda item: (item[1][0], item[0]), reverse=True)
    return dict(best[:_MAX_STATES])


_STEMMER = snowballstemmer.stemmer("english")


@functools.lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    return _STEMMER.stemWord(word)
