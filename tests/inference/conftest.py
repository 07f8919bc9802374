"""Lets the tests of this folder import `small_videos`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "data"))
