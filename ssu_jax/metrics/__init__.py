"""Metrics in NumPy: masks, sentences, the sums they are made of, baselines, and the printed table."""
