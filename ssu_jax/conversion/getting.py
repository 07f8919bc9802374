"""Published weights by name: fetched or taken from a folder, held against the table, converted once into the cache."""

import atexit
import contextlib
import errno
import functools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable
from typing import NamedTuple

from ssu_jax import files, weights
from ssu_jax.checkpoint import folder as folder_names
from ssu_jax.checkpoint import pretrained
from ssu_jax.conversion import converting, folders, sources
from ssu_jax.types import UserError
from ssu_jax.weights import Published, download

_NUM_TRIES = 10  # to take a name that other processes take, too


class Got(NamedTuple):
    """folder: converted weights. is_new: whether they were made now."""

    folder: pathlib.Path
    is_new: bool


def get(name: str, weights_dir: str | os.PathLike | None = None) -> Got:
    """Makes sure that the converted folder of published weights is there and whole.

    weights_dir: where its published files lie under their own names, or the converted folder under this name; None:
    they are downloaded. What is made goes into the cache. Raises UserError: unknown name, not there, not reachable,
    another sha256, a damaged folder in `weights_dir`, a cache that cannot be written.
    """
    line = weights.published(name)
    if weights_dir is not None and pretrained.is_converted(given := _existing(weights_dir) / name):
        pretrained.check_files(given)
        return Got(given, False)
    out = weights.cache_folder() / name
    if not faults(name, out):
        return Got(out, False)
    with folders.scratch_folder(out) as scratch:
        place = _downloaded(line, scratch) if weights_dir is None else _given(line, _existing(weights_dir))
        _convert(line, place, scratch)
        _install(scratch / name, out)
    return Got(out, True)


def ready(names: Iterable[str], weights_dir: str | os.PathLike | None = None) -> dict[str, pathlib.Path]:
    """name -> converted folder, without a look at the network.

    weights_dir: a folder that holds converted folders by name, or published files under their own names; these are
    converted into the cache, or, where that cannot be written, into a folder that goes when this process ends. What it
    has not is taken from the cache. Raises UserError: a name that is nowhere, another sha256.
    """
    return {name: _ready(name, weights_dir) for name in names}


def faults(name: str, folder: pathlib.Path) -> str:
    """What is wrong with a converted folder of published weights, "" where every digest is the one wanted."""
    try:
        pretrained.read_config(folder, weights.published(name).kind)
        pretrained.check_files(folder)
        made_from = pretrained.read_manifest(folder)["source"]["files"]
    except UserError as error:
        return str(error)
    except (KeyError, TypeError):
        return f"{folder / folder_names.MANIFEST} is damaged: it does not say what the weights were made from"
    wanted = {file.name: [file.num_bytes, file.sha256] for file in weights.published(name).files}
    return "" if made_from == wanted else f"{folder} was made from other files than the published ones"


def faults_of_files(name: str, weights_dir: pathlib.Path) -> list[str]:
    """One line for each published file of a name that lies in a folder and is another than the published one."""
    found = []
    for file in weights.published(name).files:
        if (path := weights_dir / file.name).is_file():
            try:
                download.check_digest(path, file.sha256, str(path))
            except UserError as error:
                found.append(str(error))
    return found


def _ready(name: str, weights_dir: str | os.PathLike | None) -> pathlib.Path:
    line, cached = weights.published(name), weights.folder_of(name)
    if weights_dir is not None:
        place = _existing(weights_dir)
        if (given := weights.folder_of(name, place)) != cached:
            return given
        if all((place / file.name).is_file() for file in line.files):
            return _converted_once(name, place)
    if cached is None:
        raise UserError(f"no weights of {name} are here: `ssu weights get {name}`, or {_by_hand(line)}")
    return cached


def _converted_once(name: str, weights_dir: pathlib.Path) -> pathlib.Path:
    line = weights.published(name)
    _given(line, weights_dir)
    if _is_writable(weights.cache_folder()):
        return get(name, weights_dir).folder
    if not faults(name, weights.cache_folder() / name):
        return weights.cache_folder() / name
    temporary = _temporary_folder()
    if not (temporary / name).exists():
        _convert(line, weights_dir, temporary)
    return temporary / name


def _existing(weights_dir: str | os.PathLike) -> pathlib.Path:
    if not pathlib.Path(weights_dir).is_dir():
        raise UserError(f"--weights-dir {weights_dir} is no folder: name one that holds published or converted weights")
    return pathlib.Path(weights_dir)


def _given(line: Published, weights_dir: pathlib.Path) -> pathlib.Path:
    for file in line.files:
        if not (path := weights_dir / file.name).is_file():
            raise UserError(f"{weights_dir} holds no weights of {line.name}: put {file.name} from {file.url} there")
        download.check_digest(path, file.sha256, str(path))
    return weights_dir


def _downloaded(line: Published, scratch: pathlib.Path) -> pathlib.Path:
    for file in line.files:
        try:
            download.fetch(file.url, scratch / file.name, file.sha256, file.num_bytes)
        except UserError as error:
            raise UserError(f"{error}; on a machine without internet: {_by_hand(line)}") from error
    return scratch


def _by_hand(line: Published) -> str:
    named = " and ".join(f"{file.name} from {file.url}" for file in line.files)
    return f"put {named} into a folder DIR and say --weights-dir DIR"


def _convert(line: Published, place: pathlib.Path, parent: pathlib.Path) -> None:
    """Published files in `place` -> parent/<name>."""
    source = sources.open_source(place / line.weights.name, parent / "unpacked")
    vocabulary = place / line.vocabulary.name if line.vocabulary else None
    origin = line.weights.url
    converting.convert(source, parent / line.name, line.kind, vocabulary=vocabulary, origin=origin)


def _install(made: pathlib.Path, out: pathlib.Path) -> None:
    """Gives a whole folder its name; a damaged one of that name goes, one that another process has made stays."""
    with files.writing(out):
        for number in range(_NUM_TRIES):
            try:
                os.rename(made, out)
                files.sync(out.parent)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if not faults(out.name, out):
                return
            with contextlib.suppress(FileNotFoundError):
                os.rename(out, made.with_name(f"damaged-{number}"))
    raise UserError(f"{out} is taken again and again by other processes: stop them, and try again")


def _is_writable(folder: pathlib.Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=files.make_folder(folder)):
            return True
    except (OSError, UserError):
        return False


@functools.cache
def _temporary_folder() -> pathlib.Path:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ssu-weights-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
