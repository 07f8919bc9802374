"""Published weights <-> ours: tables of names, the files they lie in, and the comparison of both models."""
