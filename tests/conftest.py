"""Strict settings for every test, set before JAX is imported, and the folder of shared material."""

import os
import pathlib
import shutil
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Caches of the session, shared by its processes (those of xdist inherit them) and gone after it. What one test has
# compiled, the commands that other tests start need not compile again; of the user's published weights none is seen.
OWN_CACHE = None
if "SSU_TESTS_CACHE" not in os.environ:
    OWN_CACHE = os.environ["SSU_TESTS_CACHE"] = tempfile.mkdtemp(prefix="ssu-tests-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.environ["SSU_TESTS_CACHE"] + "/programs")
os.environ["SSU_WEIGHTS_DIR"] = os.environ["SSU_TESTS_CACHE"] + "/weights"

# By environment, so that the commands that tests start inherit them. Small programs that run once: compiling them is
# nearly all of the time, so XLA optimizes little, and what is compiled is kept however short it took.
SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    # Not level 0: at it the CPU compiler of jax 0.10.2 makes NaNs of a sound gradient (the mask decoder's union).
    "XLA_FLAGS": "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true",
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
