"""Training: a pure step, and a loop that keeps files, signals and the clock away from it."""
