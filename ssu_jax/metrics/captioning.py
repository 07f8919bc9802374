"""Sentences against reference sentences: tokens, BLEU, ROUGE-L, and the table of statistics a frame leaves.

Tokenization and formulas follow the COCO caption evaluation (the pycocoevalcap package is the oracle of
the tests), so that figures compare with published ones; CIDEr-D is in cider.py, METEOR in meteor.py.

Corpus scores are ratios of sums. Each pair of sentences therefore leaves a row of additive numbers
(`COLUMNS`); summing rows and calling `finish` gives the scores of any selection of frames, whatever their
order, and of any number of bootstrap samples at once.
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

from ssu_jax.metrics import cider, meteor

Tokens = tuple[str, ...]

MAX_ORDER = 4
# Added to counts in BLEU, as COCO's scorer does: no score is 0 / 0, none is exactly 0.
TINY, SMALL = 1e-15, 1e-9
ROUGE_BETA = 1.2

_BLEU = tuple(f"bleu_{kind}_{n + 1}" for kind in ("correct", "guessed") for n in range(MAX_ORDER))
COLUMNS = (
    "sentences",
    "exact",
    *_BLEU,
    "hypothesis_words",
    "reference_words",
    "rouge_l",
    "cider",
    *(f"meteor_{name}" for name in meteor.COLUMNS),
)
SCORES = ("exact_match", *(f"bleu_{n + 1}" for n in range(MAX_ORDER)), "rouge_l", "meteor", "cider")


def score_pairs(pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, "pairs columns"]:
    """One row of `COLUMNS` for every (hypothesis, reference) pair of raw sentences.

    The inverse document frequencies of CIDEr-D come from the references of these pairs, each pair being a
    document. Equal pairs are scored once: sentences of a clip repeat.
    """
    unique = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    tokens = [(tokenize(hypothesis), tokenize(reference)) for hypothesis, reference in unique]
    counts = Counter(pairs)
    frequencies = cider.document_frequencies([[tokenize(r)] for _, r in unique], [counts[pair] for pair in unique])
    rows = np.zeros((len(unique), len(COLUMNS)))
    for row, pair, (hypothesis, reference) in zip(rows, unique, tokens, strict=True):
        row[:] = (
            1.0,
            float(pair[0].strip() == pair[1].strip()),
            *bleu_counts(hypothesis, [reference]),
            rouge_l(hypothesis, [reference]),
            cider.cider_d(hypothesis, [reference], frequencies),
            *meteor.statistics(hypothesis, [reference]),
        )
    return rows[[unique[pair] for pair in pairs]]


def finish(sums: Float[np.ndarray, "... columns"]) -> dict[str, np.ndarray]:
    """Scores (`SCORES`, each of the leading shape) from summed rows; NaN where no sentence was summed."""
    column = {name: sums[..., number] for number, name in enumerate(COLUMNS)}
    with np.errstate(divide="ignore", invalid="ignore"):
        count = column["sentences"]
        scores = {"exact_match": column["exact"] / count, **_bleu(column)}
        scores["rouge_l"] = column["rouge_l"] / count
        scores["meteor"] = meteor.finish(np.stack([column[f"meteor_{name}"] for name in meteor.COLUMNS], -1))
        scores["cider"] = column["cider"] / count
    return {name: np.where(count > 0, value, np.nan) for name, value in scores.items()}


def bleu_counts(hypothesis: Tokens, references: Sequence[Tokens]) -> list[float]:
    """Matched and guessed n-grams for n = 1..4, then the lengths of hypothesis and closest reference.

    An n-gram matches at most as often as it stands in the reference that has it most (Papineni et al. 2002).
    """
    correct, guessed = [], []
    for n in range(1, MAX_ORDER + 1):
        allowed: Counter = Counter()
        for reference in references:
            allowed |= _ngrams(reference, n)
        correct.append(float((_ngrams(hypothesis, n) & allowed).total()))
        guessed.append(float(max(0, len(hypothesis) - n + 1)))
    lengths = (len(reference) for reference in references)
    closest = min(lengths, key=lambda length: (abs(length - len(hypothesis)), length))
    return [*correct, *guessed, float(len(hypothesis)), float(closest)]


def rouge_l(hypothesis: Tokens, references: Sequence[Tokens]) -> float:
    """F of the longest common subsequence, (1 + b^2) P R / (R + b^2 P), b = 1.2.

    With several references the best precision and the best recall are taken apart, as COCO's scorer does.
    """
    if not hypothesis:
        return 0.0
    common = [_longest_common_subsequence(hypothesis, reference) for reference in references]
    precision = max(common) / len(hypothesis)
    recall = max(c / len(reference) if reference else 0.0 for c, reference in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


@functools.lru_cache(maxsize=65536)
def tokenize(sentence: str) -> Tokens:
    """Lower-case Penn-Treebank-like words, punctuation dropped, as COCO does before every text metric.

    Contractions are split ("isn't": "is", "n't"), hyphenated words and abbreviations kept whole. Unlike
    COCO's list, brackets and runs such as "?!" are dropped too.
    """
    text = sentence.lower().translate(_QUOTES)
    for pattern, replacement in _SPLITS:
        text = pattern.sub(replacement, text)
    return tuple(token for token in _TOKEN.findall(text) if token not in _DROPPED)


_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"'})
_SPLITS = (
    (re.compile(r"(?<=\w)n't\b"), " n't"),
    (re.compile(r"(?<=\w)'(s|m|d|re|ve|ll)\b"), r" '\1"),
    (re.compile(r"\bcannot\b"), "can not"),
    (re.compile(r"\b(gon|wan)na\b"), r"\1 na"),
    (re.compile(r"\bgotta\b"), "got ta"),
)
_TOKEN = re.compile(
    r"n't|'(?:s|m|d|re|ve|ll)\b"  # contractions
    r"|(?:[^\W\d_]\.){2,}|\b(?:mr|mrs|ms|dr)\.(?=\s)"  # abbreviations
    r"|\d+(?:[.,:/]\d+)+|\w+(?:[-/.@]\w+)*"  # numbers, words
    r"|\S"
)
_DROPPED = frozenset("'\"`.?!,:-;()[]{}…—–")


def _ngrams(tokens: Tokens, n: int) -> Counter:
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def _bleu(column: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Corpus BLEU-1..4: geometric mean of the clipped precisions times the brevity penalty."""
    ratio = (column["hypothesis_words"] + TINY) / (column["reference_words"] + SMALL)
    brevity = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    product, scores = 1.0, {}
    for n in range(1, MAX_ORDER + 1):
        product = product * (column[f"bleu_correct_{n}"] + TINY) / (column[f"bleu_guessed_{n}"] + SMALL)
        scores[f"bleu_{n}"] = np.asarray(product ** (1 / n) * brevity)
    return scores


def _longest_common_subsequence(first: Tokens, second: Tokens) -> int:
    if first == second:
        return len(first)
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for position, other in enumerate(second, start=1):
            above = lengths[position]
            lengths[position] = diagonal + 1 if word == other else max(above, lengths[position - 1])
            diagonal = above
    return lengths[-1]
