"""Strict settings for every test, set before JAX is imported, and the folder of shared material."""

import os
import pathlib
import shutil
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# One compile cache for the session, shared by its processes and gone after it: what one test has compiled, the
# commands that other tests start need not compile again. Processes of xdist inherit the folder.
OWN_CACHE = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    OWN_CACHE = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ssu-tests-")

# By environment, so that the commands that tests start inherit them. Small programs that run once: compiling them is
# nearly all of the time, so XLA optimizes little, and what is compiled is kept however short it took.
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
assert "jax" not in sys.modules, "JAX was imported before its settings were made"


def pytest_unconfigure():
    if OWN_CACHE:
        shutil.rmtree(OWN_CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Real clips, weights and annotations, which stay outside the repository."""
    candidates = [os.environ.get("SSU_SHARED"), ROOT / "shared", ROOT.parent / "shared"]
    for candidate in candidates:
        if candidate and pathlib.Path(candidate).is_dir():
            return pathlib.Path(candidate)
    pytest.skip("the shared folder is absent: set SSU_SHARED to it")
