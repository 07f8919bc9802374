"""Lets the tests of this folder import `worlds`, and the small clips of the data tests."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "data")]
