"""The small hand-made clips of the tests of data."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "data"))
