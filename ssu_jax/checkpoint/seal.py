"""Seals: a checkpoint counts when it holds a list of all its files with size and crc32c.

Orbax restores a flipped bit in a weight without a word, takes an empty folder for its latest step, and
falls back to nothing. So a step is written under another name, sealed after the commit, renamed, and
verified before each use.

    seal.json   {"files": {"state/d/0f3a...": [bytes, "crc32c in hex"], ...}, "name": "00000500"}
                and a second line: the crc32c of the first
"""

import json
import os
import pathlib

import google_crc32c

from ssu_jax import files

SEAL = "seal.json"
_PIECE_BYTES = 1 << 24


def seal(folder: pathlib.Path, name: str) -> None:
    """Writes the seal of a finished folder that will be called `name`, and flushes all of it to the disk."""
    listed = {str(path.relative_to(folder)): _size_and_checksum(path, flush=True) for path in _files_in(folder)}
    content = json.dumps({"files": listed, "name": name}, sort_keys=True)
    files.atomic_write(folder / SEAL, f"{content}\n{_checksum_of(content)}\n")


def problem_of(folder: pathlib.Path) -> str:
    """Why this folder must not be used, or "" for a sound sealed one. Reads every byte of it."""
    path = folder / SEAL
    if not folder.is_dir():
        return "does not exist"
    if not path.is_file():
        return f"is not sealed: {SEAL} is missing"
    try:
        content, checksum, rest = path.read_bytes().decode("ascii").split("\n")
        sealed = json.loads(content)
    except ValueError:
        return f"{SEAL} is damaged"
    if rest or checksum != _checksum_of(content):
        return f"{SEAL} is damaged"
    if sealed["name"] != folder.name:
        return f"was sealed as {sealed['name']}"
    return _differing_file(folder, sealed["files"])


def _differing_file(folder: pathlib.Path, listed: dict[str, list]) -> str:
    present = {str(path.relative_to(folder)) for path in _files_in(folder)}
    for name, (size, checksum) in sorted(listed.items()):
        if name not in present:
            return f"{name} is missing"
        path = folder / name
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, sealed were {size}"
        if _size_and_checksum(path)[1] != checksum:
            return f"{name} is damaged: its crc32c differs from the sealed one"
    # Files beside the state, such as scores, may be added later; Orbax would read what lies in `state`.
    foreign = sorted(name for name in present - set(listed) if "/" in name)
    return f"{foreign[0]} was not sealed with it" if foreign else ""


def _files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SEAL)


def _checksum_of(content: str) -> str:
    return f"{google_crc32c.value(content.encode()):08x}"


def _size_and_checksum(path: pathlib.Path, flush: bool = False) -> list:
    size, checksum = 0, 0
    with open(path, "rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            size, checksum = size + len(piece), google_crc32c.extend(checksum, piece)
        if flush:
            os.fsync(stream.fileno())
    return [size, f"{checksum:08x}"]
