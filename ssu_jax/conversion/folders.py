"""A folder that appears whole or not at all."""

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator

from ssu_jax import files
from ssu_jax.types import UserError


@contextlib.contextmanager
def whole_folder(out: pathlib.Path, may_replace: Callable[[pathlib.Path], bool]) -> Iterator[pathlib.Path]:
    """Gives an empty folder beside `out`; when the body ends well it takes the name `out`.

    may_replace: whether an existing folder that is not empty may be replaced. When the body raises, `out` is as it was.
    Raises UserError if `out` holds something else or cannot be written.
    """
    out = pathlib.Path(os.path.abspath(out))
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or may_replace(out))):
        raise UserError(f"--out {out} holds something else: name a new or an empty folder")
    temporary, old = (out.with_name(f".{out.name[:80]}.{secrets.token_hex(4)}.{end}") for end in ("partial", "old"))
    with files.writing(out):
        try:
            files.make_folder(temporary)
            yield temporary
            for path in temporary.iterdir():
                files.sync(path)
            if out.exists():
                os.replace(out, old)
            os.replace(temporary, out)
            files.sync(out.parent)
        finally:
            for leftover in (temporary, old):
                shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def scratch_folder(beside: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a name for a folder of large intermediate files, on the disk of `beside`; what is there is removed."""
    beside = pathlib.Path(os.path.abspath(beside))
    scratch = beside.with_name(f".{beside.name[:80]}.{secrets.token_hex(4)}.scratch")
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
