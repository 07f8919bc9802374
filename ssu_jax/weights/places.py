"""Where converted weights lie: FOLDER/<name>, in a folder that is given or in the user's cache.

SSU_WEIGHTS_DIR                 the cache of weights itself
XDG_CACHE_HOME, else ~/.cache   the cache of everything: weights are in ssu_jax/weights below it
"""

import os
import pathlib

from ssu_jax import files
from ssu_jax.weights.table import published

_VARIABLE = "SSU_WEIGHTS_DIR"
_MANIFEST = "manifest.json"  # `ssu convert` writes it last, and the folder appears whole


def cache_folder() -> pathlib.Path:
    """The folder of cached weights; it need not exist. Raises UserError if there is no place for one."""
    named = os.environ.get(_VARIABLE)
    return pathlib.Path(named) if named else files.cache_folder() / "weights"


def folder_of(name: str, weights_dir: str | os.PathLike | None = None) -> pathlib.Path | None:
    """The converted folder of published weights: weights_dir/name if that is there, else the cache's; None if neither.

    Costs two looks at the disk: whoever reads the weights compares their digests. Raises UserError for an unknown name.
    """
    published(name)
    given = [pathlib.Path(weights_dir)] if weights_dir is not None else []
    candidates = [folder / name for folder in (*given, cache_folder())]
    return next((folder for folder in candidates if (folder / _MANIFEST).is_file()), None)
