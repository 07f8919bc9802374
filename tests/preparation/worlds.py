"""What worker processes of the tests make: importable by them, which a test file is not."""

import os
import pathlib
import signal
import time

from small_clips import tiny_clip

from ssu_jax.data import records
from ssu_jax.types import UserError


class MakeTiny:
    """The tiny clips by number. In `place` it counts how often it was asked, and finds what is to go wrong:
    bad-N: clip N cannot be made; kill-N: its process dies; slow: each takes a while.
    """

    def __init__(self, place: pathlib.Path):
        self.place = place

    def __call__(self, number: int) -> bytes:
        with open(self.place / "asked", "ab") as file:
            file.write(b".")
        if (self.place / f"bad-{number}").exists():
            raise UserError(f"{self.place}/video-{number}.mp4: at 3.2 s: cannot be decoded")
        if (self.place / f"kill-{number}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if (self.place / "slow").exists():
            time.sleep(0.2)
        return records.encode_clip(tiny_clip(number))

    def asked(self) -> int:
        path = self.place / "asked"
        return path.stat().st_size if path.exists() else 0
