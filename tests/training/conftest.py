"""Makes toy.py importable; it is also a program of its own."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
