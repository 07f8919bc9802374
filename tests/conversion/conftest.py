"""Lets the tests of this folder import `files_of_weights`, and the committed fixtures of every kind."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


def pytest_generate_tests(metafunc):
    if "published" in metafunc.fixturenames:
        import files_of_weights

        found = files_of_weights.published_fixtures()
        metafunc.parametrize(
            "published", found, ids=[str(path.parent.relative_to(files_of_weights.FIXTURES)) for path in found]
        )


@pytest.fixture
def opened(tmp_path):
    """Opens a folder or file of published weights."""
    from ssu_jax.conversion import sources

    return lambda path, config=None: sources.open_source(path, tmp_path / "scratch", config)
