"""Strict settings for every test, set before JAX is imported, and the folder of shared material."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# By environment, so that the commands that tests start inherit them.
STRICT = {"JAX_PLATFORMS": "cpu", "JAX_NUMPY_RANK_PROMOTION": "raise"}
for name, value in STRICT.items():
    os.environ.setdefault(name, value)
if "jax" in sys.modules:  # a plugin was quicker: the environment has been read already
    sys.modules["jax"].config.update("jax_numpy_rank_promotion", os.environ["JAX_NUMPY_RANK_PROMOTION"])


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
