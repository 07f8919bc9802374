"""Files that appear whole or not at all, names that stay inside their folder, digests."""

import contextlib
import errno
import hashlib
import os
import pathlib
import secrets
import unicodedata
from collections.abc import Iterator

import google_crc32c

from ssu_jax.types import UserError

MAX_NAME_BYTES = 255  # one path component, the limit of every common file system
_REMEDIES = {
    errno.ENOSPC: "the disk is full: free space or choose another place",
    errno.EDQUOT: "the disk quota is used up: free space or choose another place",
    errno.EACCES: "no permission to write there: choose another place",
    errno.EPERM: "no permission to write there: choose another place",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOTDIR: "a part of the path is a file, not a folder: choose another place",
    errno.EISDIR: "a folder has that name: choose another one",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EEXIST: "something of that name stands in the way: choose another place",
}


def atomic_write(path: str | os.PathLike, content: bytes | str) -> None:
    """Writes a file that is seen whole or not at all. Text is stored as UTF-8.

    Raises UserError if the place cannot be written or is full; then `path` is as it was before.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary path in the folder of `path`, for writers that need a name; then renames it.

    The temporary name is hidden and keeps the suffix (video writers choose their format by it). When the
    body raises, the temporary file is removed and `path` is untouched. Raises UserError as `atomic_write`.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.stem[:80]}.{secrets.token_hex(4)}.partial{path.suffix}")
    with writing(path):
        try:
            make_folder(path.parent)
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turns an OSError that the user can mend (full, forbidden, no such place) into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise UserError(f"cannot write {path}: {_REMEDIES[error.errno]}") from error


def make_folder(path: str | os.PathLike) -> pathlib.Path:
    """Makes a folder and its parents. Raises UserError if it cannot."""
    path = pathlib.Path(path)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def existing_parent(path: str | os.PathLike) -> pathlib.Path:
    """The path itself if it exists, else the nearest folder above that does."""
    path = pathlib.Path(path).absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def remove_if_empty(path: str | os.PathLike) -> None:
    """Takes a folder away that holds nothing."""
    if os.path.isdir(path) and not os.listdir(path):
        os.rmdir(path)


def cache_folder() -> pathlib.Path:
    """The user's folder for what can be made again: $XDG_CACHE_HOME/ssu_jax, by default ~/.cache/ssu_jax.

    It need not exist. Raises UserError if there is no home.
    """
    try:
        root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    except RuntimeError as error:
        raise UserError("there is no home directory for a cache: set XDG_CACHE_HOME to a folder") from error
    return pathlib.Path(root) / "ssu_jax"


def sync(path: str | os.PathLike) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def resolve_inside(root: str | os.PathLike, name: str) -> pathlib.Path:
    """The real path of a name that comes from data: always below `root`.

    Raises UserError for absolute names, "..", drive letters, backslashes, control and direction marks,
    characters that a normalizing file system folds into one of these, names too long, and links out.
    """
    reason = _hostile(name) or _hostile(unicodedata.normalize("NFKC", name))
    if reason:
        raise UserError(f"refused the name {ascii(name)[:80]} from data: {reason}")
    base = os.path.realpath(root)
    full = os.path.realpath(os.path.join(base, name))
    if os.path.commonpath([base, full]) != base or full == base:
        raise UserError(f"refused the name {ascii(name)[:80]} from data: it leads out of {root}")
    return pathlib.Path(full)


def _hostile(name: str) -> str:
    if not name or len(name) > 4096:
        return "it is empty or too long"
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for letter in name):
        return "it holds a control character or a direction mark"
    if "\\" in name or ":" in name or name.startswith(("/", "~")):
        return "it is not a plain relative name"
    parts = name.split("/")
    if any(part.strip(" .") == "" for part in parts):
        return "a part of it is empty or made of dots"
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return "it is empty or too long"
    return ""


def sha256_of(path: str | os.PathLike) -> str:
    """Hexadecimal sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_bytes(content: bytes | memoryview) -> str:
    """Hexadecimal sha256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def crc32c_of(content: bytes) -> int:
    """CRC-32C (Castagnoli) of bytes, 0 to 2**32 - 1."""
    return google_crc32c.value(content)
