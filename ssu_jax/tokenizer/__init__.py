"""Text <-> ids: our own words; published vocabularies behind our special ids; CLIP's byte pairs."""

from ssu_jax.tokenizer.words import BOS, EOS, PAD, SPECIAL, UNK, Tokenizer

__all__ = ["BOS", "EOS", "PAD", "SPECIAL", "UNK", "Tokenizer"]
