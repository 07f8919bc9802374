"""Weights of the loss terms (formulas in losses.py)."""

import dataclasses

from ssu_jax.config.options import option


@dataclasses.dataclass
class LossConfig:
    """A weight of 0 takes the term out. Terms whose labels a data set lacks are 0 by themselves."""

    focal: bool = option(True, "focal instead of plain cross-entropy, for masks and words (the paper's +Focal)")
    focal_gamma: float = option(1.0, "exponent of the focal factor", low=0.0, high=5.0)
    mask: float = option(2.0, "binary cross-entropy of the mask", low=0.0)
    dice: float = option(1.0, "Dice of the mask, on frames with sound", low=0.0)
    query_class: float = option(2.0, "multi-mask form: cross-entropy of the queries' classes (matching too)", low=0.0)
    query_mask: float = option(5.0, "multi-mask form: cross-entropy of matched masks (matching too)", low=0.0)
    query_dice: float = option(5.0, "multi-mask form: Dice of matched masks (matching too)", low=0.0)
    no_object: float = option(0.1, "weight in query_class of a query without a source", low=0.0, high=1.0)
    caption: float = option(1.0, "cross-entropy of the sentence", low=0.0)
    language_model: float = option(0.2, "cross-entropy of the language-model expert alone", low=0.0)
    rcc: float = option(0.1, "region-caption consistency: L2 distance of the embeddings", low=0.0)
    contrastive: float = option(0.05, "keeps small encoders that are trained along from collapsing under rcc", low=0.0)
    scene: float = option(0.05, "cross-entropy of the scene class", low=0.0)
    audible: float = option(0.5, "binary cross-entropy of the classes heard each second", low=0.0)
    semantic: float = option(1.0, "cross-entropy of the class of every pixel, silent objects too", low=0.0)
    balance: float = option(0.01, "router load balance", low=0.0)
    router_z: float = option(1e-3, "router z-loss", low=0.0)
