"""One example of each layout for a whole run, and copies of it to break."""

import functools
import pathlib
import shutil

import pytest

from ssu_jax.data import synthetic
from ssu_jax.data.datasets import LAYOUTS

NUM_CLIPS, SEED = 6, 0


@pytest.fixture(scope="session")
def world():
    """The clips that the examples are made of, as `write_example` draws them."""
    return [synthetic.make_clip(SEED, "train", index) for index in range(NUM_CLIPS + 1)]


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """example(name) is the folder of a layout's example, made once; it must not be written to."""

    @functools.cache
    def make(name) -> pathlib.Path:
        folder = tmp_path_factory.mktemp(name)
        LAYOUTS[name].write_example(folder, NUM_CLIPS, SEED)
        return folder

    return make


@pytest.fixture
def broken(example, tmp_path):
    """broken(name) is a copy of the example."""

    def copy(name) -> pathlib.Path:
        return pathlib.Path(shutil.copytree(example(name), tmp_path / name))

    return copy
