"""The program that reads a file of PyTorch: FILE -> the same tensors as a safetensors file on standard output.

    python -m ssu_jax.conversion.unpack FILE

Only pth.py starts it, as a process of its own. It shuts itself in (box.py) before it opens the file, and reads it
with torch's weights_only unpickler, which makes tensors and plain containers and nothing else. Exit code 3: refused,
standard error says why in one line.
"""

import os
import pickle
import re
import sys
from typing import Any

import numpy as np

from ssu_jax.conversion import box, safetensors_files

REFUSED = 3
WRAPPERS = ("state_dict", "model_state_dict", "model")  # what training programs put their weights under
_MAX_SECONDS = 1800
_SPARE_BYTES = 1 << 30  # of memory, for torch at work


class _RefusedError(Exception):
    """Why a file is not read."""


def main(path: str) -> int:
    """Reads, checks, writes. Returns the exit code."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the tensors
    import torch

    torch.set_num_threads(1)
    size = os.path.getsize(path)
    landlock = box.shut(_MAX_SECONDS, 3 * size + _SPARE_BYTES)
    try:
        tensors, left_out = _state(_load(torch, path))
        _write(torch, tensors, output, {"landlock": str(landlock), "left_out": left_out}, most_bytes(size))
    except _RefusedError as error:
        print(error, file=sys.stderr)
        return REFUSED
    output.close()
    return 0


def most_bytes(file_bytes: int) -> int:
    """What the tensors of a file may take: more only where one stored number is repeated over a large shape."""
    return 2 * file_bytes + (1 << 26)


def _load(torch: Any, path: str) -> Any:
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    try:
        # The form before PyTorch 1.6 cannot be mapped into memory.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL\s+(\S+)", str(error)) or re.search(r"(\w+(?:\.\w+)+) was not an allowed", str(error))
        if name:
            raise _RefusedError(f"it holds code or objects that are no tensors ({name[1]})") from error
        raise _RefusedError(f"it is damaged or holds more than tensors ({_first_line(error)})") from error
    except Exception as error:  # a damaged file raises anything
        raise _RefusedError(f"it is damaged ({type(error).__name__}: {_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    # Round what is wrong torch tells of its own history and advises reading the file unsafely.
    text = str(error).rpartition("WeightsUnpickler error:")[2].split("Check the documentation")[0]
    text = text.replace("Weights only load failed.", "").split("Re-running")[0]
    return " ".join(text.split())[:160]


def _state(tree: Any) -> tuple[dict[str, Any], str]:
    """(name -> value of a state dict, what else lay beside it)."""
    left_out: list[str] = []
    while isinstance(tree, dict):
        wrapper = next((name for name in WRAPPERS if isinstance(tree.get(name), dict)), None)
        if wrapper is None:
            return dict(tree), ", ".join(left_out)
        left_out += [str(name) for name in tree if name != wrapper]
        tree = tree[wrapper]
    raise _RefusedError(f"it holds a {type(tree).__name__}, wanted is a dictionary of tensors")


def _write(torch: Any, tensors: dict[str, Any], output: Any, metadata: dict[str, str], limit: int) -> None:
    dtypes = _dtypes(torch)
    foreign = [
        f"{name!r} ({_what(tensor)})"
        for name, tensor in tensors.items()
        if not isinstance(name, str)
        or not isinstance(tensor, torch.Tensor)
        or tensor.layout != torch.strided
        or tensor.dtype not in dtypes
    ]
    if foreign:
        raise _RefusedError("it holds what is no plain tensor: " + ", ".join(foreign[:20]))
    layout = {name: (tuple(tensor.shape), dtypes[tensor.dtype]) for name, tensor in tensors.items()}
    if (num_bytes := safetensors_files.num_bytes(layout.values())) > limit:
        raise _RefusedError(f"its tensors would take {num_bytes} bytes, far more than the file")

    def content(name: str) -> memoryview:
        return memoryview(tensors[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy())

    safetensors_files.write_stream(output, layout, content, metadata)


def _what(value: Any) -> str:
    return f"{value.dtype}, {value.layout}" if hasattr(value, "layout") else type(value).__name__


def _dtypes(torch: Any) -> dict[Any, np.dtype]:
    """torch's types of numbers -> NumPy's."""
    return {getattr(torch, dtype.name): dtype for dtype in safetensors_files.NAMES if hasattr(torch, dtype.name)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
