"""Lets the tests of this folder import `small_clips`, also in processes that they start."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
