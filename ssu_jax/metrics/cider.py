"""CIDEr-D (Vedantam, Zitnick, Parikh 2015): tf-idf cosine of n-grams, n = 1..4, clipped, length-penalized, x 10.

The inverse document frequencies come from the evaluated references themselves. Hence a single item, or
references that are all alike, score 0 whatever the hypotheses, and few, template-like references depress it.
"""

import functools
import math
from collections import Counter
from collections.abc import Sequence

Tokens = tuple[str, ...]

MAX_ORDER = 4
SIGMA = 6.0


class DocumentFrequencies:
    """In how many of `num_documents` items an n-gram stands, and the sentence vectors that follow from it."""

    def __init__(self, counts: Counter, num_documents: int):
        self._counts = counts
        self._log_documents = math.log(max(1, num_documents))
        # An instance's own cache: vectors of one corpus must not outlive it.
        self.vector = functools.lru_cache(maxsize=None)(self._vector)

    def _vector(self, tokens: Tokens) -> tuple[dict[Tokens, float], list[float]]:
        """(tf-idf of every n-gram, the norm of each order)."""
        weights, squares = {}, [0.0] * MAX_ORDER
        for ngram, count in _all_ngrams(tokens).items():
            # An n-gram that no reference has counts as if one had it.
            inverse = self._log_documents - math.log(max(1, self._counts[ngram]))
            weights[ngram] = count * inverse
            squares[len(ngram) - 1] += weights[ngram] ** 2
        return weights, [math.sqrt(square) for square in squares]


def document_frequencies(documents: Sequence[Sequence[Tokens]], repeats: Sequence[int]) -> DocumentFrequencies:
    """Counts over items, each a list of reference token tuples that stands `repeats` times in the corpus."""
    counts: Counter = Counter()
    for references, times in zip(documents, repeats, strict=True):
        for ngram in set().union(*(_all_ngrams(reference) for reference in references)):
            counts[ngram] += times
    return DocumentFrequencies(counts, sum(repeats))


def cider_d(hypothesis: Tokens, references: Sequence[Tokens], frequencies: DocumentFrequencies) -> float:
    """CIDEr-D of one item, 0 to 10: the mean over its references and over n = 1..4."""
    weights, norms = frequencies.vector(hypothesis)
    total = 0.0
    for reference in references:
        reference_weights, reference_norms = frequencies.vector(reference)
        products = [0.0] * MAX_ORDER
        for ngram, weight in weights.items():
            other = reference_weights.get(ngram, 0.0)
            # Clipped: repeating a word of the reference does not pay.
            products[len(ngram) - 1] += min(weight, other) * other
        cosine = sum(
            product / (norm * reference_norm) if norm and reference_norm else product
            for product, norm, reference_norm in zip(products, norms, reference_norms, strict=True)
        )
        total += cosine * math.exp(-((len(hypothesis) - len(reference)) ** 2) / (2 * SIGMA**2))
    return 10.0 * total / (MAX_ORDER * len(references))


@functools.lru_cache(maxsize=65536)
def _all_ngrams(tokens: Tokens) -> Counter:
    return Counter(tokens[start : start + n] for n in range(1, MAX_ORDER + 1) for start in range(len(tokens) - n + 1))
