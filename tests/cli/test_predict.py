"""`ssu predict`: what it says, and that real files of every kind come to a good end."""

import json

import numpy as np
import pytest
from PIL import Image

from ssu_jax.cli import main
from ssu_jax.config import sizes
from ssu_jax.inference import loading
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


class Chosen(BaseException):  # the command line reports every other
    """Says which model was asked for."""


@pytest.fixture
def chosen(monkeypatch, tmp_path, shared):
    """Runs predict with arguments; "late_fusion" and its folders, or "ssuformer" and its checkpoint."""

    def choice(name):
        def raise_it(cls, given=None):
            raise Chosen(name, given)

        return classmethod(raise_it)

    monkeypatch.setattr(Predictor, "from_checkpoint", choice("ssuformer"))
    monkeypatch.setattr(Predictor, "from_published", choice("late_fusion"))
    monkeypatch.setattr(loading, "family_of", lambda path: "ssuformer")
    video = str(shared / "data" / "clips" / "vggsound" / "avsync15_dog.mp4")

    def run(*arguments):
        with pytest.raises(Chosen) as caught:
            main.main(["predict", "--verbose", "--out", str(tmp_path), video, *map(str, arguments)])
        return caught.value.args

    return run


def test_published_weights_are_taken_where_they_are_at_hand(chosen, monkeypatch, tmp_path, capsys, shared):
    monkeypatch.setenv("SSU_WEIGHTS_DIR", str(tmp_path / "cache"))
    assert chosen() == ("ssuformer", None)
    assert "ssu weights get yamnet deeplab_v3" in capsys.readouterr().err
    assert chosen("--checkpoint", "runs/mine") == ("ssuformer", "runs/mine")
    assert chosen("--model", "ssuformer") == ("ssuformer", None)
    assert chosen("--model", "late_fusion") == ("late_fusion", None)
    assert "note" not in capsys.readouterr().err
    published = shared / "data" / "weights" / "tflite"
    name, folders = chosen("--weights-dir", published)
    assert (name, set(folders)) == ("late_fusion", {"yamnet", "deeplab_v3"})
    assert all(folder.parent == tmp_path / "cache" for folder in folders.values()), "converted once, into the cache"
    assert chosen() == ("late_fusion", None), "now they are at hand"
    assert chosen("--model", "ssuformer") == ("ssuformer", None)
    assert chosen("--checkpoint", "runs/mine") == ("ssuformer", "runs/mine")
    assert chosen("--text", "dog") == ("ssuformer", None), "late fusion takes no words"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model", "late_fusion", "--checkpoint", "c"], "--checkpoint goes with SSUFormer"),
        (["--model", "ssuformer", "--weights-dir", "."], "--model ssuformer"),
        (["--checkpoint", "c", "--weights-dir", "."], "--checkpoint: leave one out"),
        (["--weights-dir", "no/such/folder"], "no/such/folder is no folder"),
        (["--model", "late_fusion"], "ssu weights get yamnet deeplab_v3"),
        (["--model", "late_fusion", "--text", "dog"], "--text goes with SSUFormer"),
        (["--text", " , "], "names nothing"),
    ],
)
def test_what_does_not_go_together_is_refused(stubbed, shared, tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.setenv("SSU_WEIGHTS_DIR", str(tmp_path / "cache"))
    video = shared / "data" / "clips" / "vggsound" / "avsync15_dog.mp4"
    assert stubbed(video, *arguments) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not (tmp_path / "avsync15_dog").exists()


def test_real_video_with_published_weights(shared, tmp_path, monkeypatch):
    """The whole road: a dog that barks in two of its four seconds, a bird that was outlined by hand, no sound."""
    monkeypatch.setenv("SSU_WEIGHTS_DIR", str(tmp_path / "cache"))
    data, out = shared / "data", tmp_path / "out"
    names = ["vggsound/avsync15_dog", "vggsound/vggsound_0nib7bMm8BA_15",
             "public-domain-and-edge-cases/sam2_dog_silent_audio"]  # fmt: skip
    videos = [str(data / "clips" / f"{name}.mp4") for name in names]
    published = str(data / "weights" / "tflite")
    assert main.main(["predict", *videos, "--weights-dir", published, "--out", str(out), "--only", "json,masks"]) == 0
    dog, bird, silent = (json.loads((out / name.rpartition("/")[2] / "prediction.json").read_text()) for name in names)
    assert [bool(one["caption"]) for one in dog["frames"]] == [True, False, True, False]
    assert all("dog" in one["caption"] and "barking" in one["caption"] for one in dog["frames"][::2])
    assert [one["area"] > 0 for one in dog["frames"]] == [True, False, True, False]
    assert "heard, its source in the picture: Dog (0:00 to 0:01, 0:02 to 0:03)" in dog["notes"]
    assert all("bird" in one["caption"] for one in bird["frames"])
    masks = sorted((data / "annotations" / "hand_masks" / "vggsound_0nib7bMm8BA_15").glob("*.png"))
    found = sorted((out / "vggsound_0nib7bMm8BA_15" / "masks").glob("*.png"))
    pairs = [[np.array(Image.open(path)) > 0 for path in pair] for pair in zip(masks, found, strict=True)]
    assert np.mean([(true & ours).sum() / (true | ours).sum() for true, ours in pairs]) >= 0.5
    assert [(one["caption"], one["area"]) for one in silent["frames"]] == [("", 0.0)] * 10
