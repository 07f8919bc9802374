"""PyTorch's .pth: a pickle, and a pickle is a program. It is read in a child process that can write nothing but its
output (unpack.py, box.py); what comes out is a safetensors file, and is distrusted like any other.

The child gets an empty folder, an environment without the user's variables, and a pipe; this process writes what
comes through the pipe into a file, up to a bound.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from typing import BinaryIO

import ssu_jax
from ssu_jax import files
from ssu_jax.conversion import safetensors_files, unpack
from ssu_jax.conversion.tensors import Source
from ssu_jax.types import UserError

WALL_SECONDS = 3600
_HEADER_BYTES = 1 << 27  # room for the header of what comes out
_PIECE_BYTES = 1 << 20
_MESSAGE_BYTES = 1 << 16
NO_LANDLOCK = ("the kernel has no Landlock: the process that read this file could write to none, but was not kept from "
               "removing files")  # fmt: skip


def open_file(path: pathlib.Path, scratch: pathlib.Path) -> Source:
    """The tensors of a state dict. Raises UserError: no torch here, damaged, or holding code or other objects."""
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"{path} needs PyTorch to be read: pip install ssu_jax[convert], or get safetensors of it")
    if os.name != "posix":
        raise UserError(f"{path} can be read on Linux or macOS alone: get safetensors of it, or convert it there")
    unpacked = files.make_folder(scratch) / "unpacked.safetensors"
    _run(path.absolute(), unpacked)
    tensors, metadata = safetensors_files.read_header(unpacked)
    notes = [] if int(metadata.get("landlock", 0)) else [NO_LANDLOCK]
    if left_out := metadata.get("left_out"):
        notes.append(f"left out beside the weights: {ascii(left_out)[1:-1][:300]}")
    return Source(path, "pth", tensors, {}, (path,), tuple(notes))


def _run(path: pathlib.Path, unpacked: pathlib.Path) -> None:
    most_bytes = unpack.most_bytes(path.stat().st_size) + _HEADER_BYTES
    with tempfile.TemporaryDirectory(dir=unpacked.parent) as empty, _start(path, empty) as child:
        messages: list[str] = []
        # A thread of its own: a child that waits for room in one pipe would never fill the other.
        listener = threading.Thread(target=lambda: messages.append(_end_of(child.stderr)))
        timer = threading.Timer(WALL_SECONDS, child.kill)
        listener.start()
        timer.start()
        try:
            num_bytes = _copy(child, unpacked, most_bytes)
            if num_bytes > most_bytes:
                child.kill()
            listener.join()
        except BaseException:
            child.kill()
            raise
        finally:
            timer.cancel()
    if num_bytes > most_bytes:
        raise UserError(f"{path} is refused: it unpacks to far more than its size")
    if child.returncode == unpack.REFUSED:
        raise UserError(f"{path} is refused: {_printable(messages[0])}")
    if child.returncode:
        raise UserError(f"{path} cannot be read: its reader ended with {child.returncode}: {_printable(messages[0])}")


def _start(path: pathlib.Path, folder: str) -> subprocess.Popen:
    # Where this package and the others lie; not the working directory, which may hold anything.
    places = [str(pathlib.Path(ssu_jax.__file__).parents[1]), *filter(os.path.isabs, sys.path)]
    return subprocess.Popen(
        [sys.executable, "-B", "-P", "-m", unpack.__name__, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def _copy(child: subprocess.Popen, unpacked: pathlib.Path, most_bytes: int) -> int:
    num_bytes = 0
    with files.writing(unpacked), open(unpacked, "wb") as file:
        while num_bytes <= most_bytes and (piece := child.stdout.read(_PIECE_BYTES)):
            num_bytes += len(piece)
            file.write(piece)
    return num_bytes


def _end_of(stream: BinaryIO) -> str:
    end = b""
    while piece := stream.read1(_MESSAGE_BYTES):
        end = (end + piece)[-_MESSAGE_BYTES:]
    return end.decode(errors="replace")


def _printable(message: str) -> str:
    """The last line, without control characters: parts of it come from the file."""
    lines = [line for line in message.splitlines() if line.strip()]
    return "".join(letter if letter.isprintable() else "?" for letter in lines[-1])[:400] if lines else "no message"
