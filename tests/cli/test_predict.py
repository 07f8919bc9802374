"""`ssu predict`: what it says, and that real files of every kind come to a good end."""

import json

import numpy as np
import pytest

from ssu_jax.cli import main
from ssu_jax.config import sizes
from ssu_jax.inference.predictor import Predictor


class Words:
    def decode(self, ids):
        return "The red bell is ringing."


def describe(params, frames, log_mel, frame_valid):
    """Stands for the model: sees a source in the upper half of everything."""
    masks = np.zeros(frames.shape[:4], np.float32)
    masks[:, :, : frames.shape[2] // 2] = 0.75
    return masks, np.zeros((*frames.shape[:2], 4), np.int32)


@pytest.fixture
def stubbed(monkeypatch, tmp_path):
    monkeypatch.setattr(
        Predictor, "from_checkpoint", classmethod(lambda cls, path=None: cls(sizes.nano(), None, Words(), describe))
    )
    return lambda *arguments: main.main(["predict", "--out", str(tmp_path), *map(str, arguments)])


REAL = {
    "public-domain-and-edge-cases/sam2_juggle_no_audio_stream": (10, "no sound stream"),
    "public-domain-and-edge-cases/sam2_dog_silent_audio": (10, "the sound is silent"),
    "public-domain-and-edge-cases/cockatoo_yuv444_silent": (14, "the sound is silent"),
    "public-domain-and-edge-cases/bigbuckbunny_5s": (5, None),
    "public-domain-and-edge-cases/nasa_13013": (13, "2 video streams"),
    "music-1fps/guitar": (3, "the sound is 1.08 s longer than the pictures"),
    "vggsound/vggsound_-yoaSondvkw_71": (10, None),
    "vggsound/avsync15_dog": (4, None),
}


def test_real_files_of_every_kind(shared, stubbed, tmp_path, capsys):
    """No sound, silence, 4:4:4, 5.1, two of every stream, one picture a second, an edit list, 14.96 a second."""
    videos = [shared / "data" / "clips" / f"{name}.mp4" for name in REAL]
    assert stubbed(*videos, "--only", "json") == 0
    printed = capsys.readouterr().out
    for video, (seconds, note) in zip(videos, REAL.values(), strict=True):
        assert f"{video}: {seconds} s described in {tmp_path / video.stem}" in printed
        found = json.loads((tmp_path / video.stem / "prediction.json").read_text())
        assert len(found["frames"]) == seconds
        assert [text.startswith(note) for text in found["notes"][:1]] == ([True] if note else [])
        hears = note is None or "sound is silent" not in note and "no sound" not in note
        for frame in found["frames"]:
            assert bool(frame["caption"]) == hears
            assert frame["area"] == pytest.approx(0.5 if hears else 0.0, abs=0.01)
            assert frame["score"] == pytest.approx(0.75 if hears else 0.0, abs=0.02)


def test_all_results_of_a_real_file(shared, stubbed, tmp_path):
    assert stubbed(shared / "data" / "clips" / "vggsound" / "avsync15_dog.mp4") == 0
    found = sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*") if one.is_file())
    masks = [f"avsync15_dog/masks/0000{second}.png" for second in range(4)]
    names = ("captions.vtt", *masks, "overlay.mp4", "prediction.json")
    assert found == sorted(name if "/" in name else f"avsync15_dog/{name}" for name in names)
