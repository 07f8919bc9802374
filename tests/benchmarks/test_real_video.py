"""The benchmark on real clips: its truth, its moved and revoiced copies, and its tables, on clips made here."""

import csv
import importlib
import json
import pathlib

import numpy as np
import pytest
import scipy.io.wavfile
from PIL import Image

from ssu_jax.data import survey, video
from ssu_jax.inference.described import Described, SecondPrediction
from ssu_jax.types import Clip
from ssu_jax.visualization import pictures, writer

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"
RATE, SECONDS, HEIGHT, WIDTH = 16_000, 6, 48, 64
BOX = (slice(12, 36), slice(16, 48))  # of the true mask
CANARY = "vggsound_0nib7bMm8BA_15"


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("real_video"), importlib.import_module("real_clips")


@pytest.fixture
def data(tmp_path):
    """A clip whose second k is a grey of 30 k, loud in seconds 0 to 3, with a .int.wav beside it; and a silent clip."""
    clips, annotations = tmp_path / "data" / "clips", tmp_path / "data" / "annotations"
    (annotations / "hand_masks").mkdir(parents=True)
    clips.mkdir()
    greys = np.broadcast_to(np.arange(SECONDS)[:, None, None, None] * 30, (SECONDS, HEIGHT, WIDTH, 3)).astype(np.uint8)
    tone = 8000 * np.sin(np.arange(SECONDS * RATE) * 0.3) * (np.arange(SECONDS * RATE) < 4 * RATE)
    for name, sound in ((CANARY, tone), ("sam2_dog_silent_audio", 0 * tone)):
        clip = Clip(name, greys, np.arange(SECONDS) + 0.5, sound.astype(np.int16), RATE, np.ones(SECONDS, bool), ())
        writer.write_plain(clips / f"{name}.mp4", [clip])
    scipy.io.wavfile.write(clips / f"{CANARY}.int.wav", RATE, np.full(7 * RATE, 0.25, np.float32))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[BOX] = 255
    Image.fromarray(mask).save(annotations / "mask.png")
    seconds = [{"t": second + 0.5, "mask": "mask.png"} for second in (0, 2, 5)]
    (annotations / "hand_masks" / "hand_masks.json").write_text(json.dumps({"clips": {CANARY: seconds}}))
    boxes = {f"clips/{CANARY}.mp4": {"bbox": [[0.25, 0.25, 0.75, 0.75]]}}
    (annotations / "vggss_boxes_of_our_clips.json").write_text(json.dumps({"clips": boxes}))
    with open(annotations / "clips.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "source_class"])
        rows.writerow([f"clips/{CANARY}.mp4", "canary calling"])
        rows.writerow(["clips/sam2_dog_silent_audio.mp4", "silent audio stream"])
    return tmp_path / "data"


class Marksman:
    """Masks the left half of the true box and says "bird" wherever a second is loud."""

    def predict(self, info):
        def seconds():
            for number, sound in enumerate(video.second_sounds(info, RATE)):
                mask, loud = np.zeros((info.height, info.width), bool), pictures.level_of(sound) > -50
                mask[BOX[0], 16:32] = loud
                yield SecondPrediction(number, info.time_of(number), "The bird." if loud else "", mask, 0.1, 0.9)

        return Described(info, seconds(), ["heard, its source in the picture: Bird (0:00 to 0:04)"])


def test_the_truth_is_known_only_where_somebody_looked(modules):
    real_video, real_clips = modules
    levels = np.array([-20.0, -60.0, -30.0])
    case = real_clips.Case("clip", pathlib.Path("clip.mp4"))
    assert real_video.sounding_truth(case, levels).tolist() == [-1, -1, -1]
    case.masks = {1: np.ones((2, 2), bool), 2: np.ones((2, 2), bool), 7: np.ones((2, 2), bool)}
    assert real_video.sounding_truth(case, levels).tolist() == [-1, 0, 1]
    case.wanted = {"in_view": True}
    assert real_video.sounding_truth(case, levels).tolist() == [1, 0, 1]
    case.nobody = True
    assert real_video.sounding_truth(case, levels).tolist() == [0, 0, 0]


def test_copies_have_another_sound_or_are_half_a_second_on(modules, data, tmp_path):
    _, real_clips = modules
    cases = {case.sound: case for case in real_clips.cases_of(data, tmp_path, [CANARY])}
    assert set(cases) == {"own", "off screen", "own, boxes at 5 s"}
    revoiced = survey.survey(cases["off screen"].path)
    assert cases["off screen"].nobody
    assert revoiced.num_seconds == SECONDS
    assert np.concatenate(list(video.second_sounds(revoiced, RATE))).tolist() == [8192] * (SECONDS * RATE)
    moved = survey.survey(cases["own, boxes at 5 s"].path)
    shown = list(real_clips.pictures_at(moved, [moved.time_of(second) for second in range(moved.num_seconds)]))
    assert len(shown) == SECONDS - 1
    assert [round(picture.mean() / 30) for picture in shown] == [1, 2, 3, 4, 5]
    loud = [pictures.level_of(sound) for sound in video.second_sounds(moved, RATE)]
    assert loud[3] == pytest.approx(loud[0] - 3, abs=0.2)  # from 3.5 s on: half of it sounds
    assert loud[4] < -60


def test_rows_tables_sheets_and_exit_code(modules, data, tmp_path, monkeypatch, capsys):
    real_video, _ = modules
    monkeypatch.setattr(real_video, "_predictor", lambda args: Marksman())
    code = real_video.main(["--data", str(data), "--out", str(tmp_path / "out")])
    rows = [json.loads(line) for line in (tmp_path / "out" / "clips.jsonl").read_text().splitlines()]
    own, boxed, revoiced, silent = rows
    assert [row["sound"] for row in rows] == ["own", "own, boxes at 5 s", "off screen", "own"]
    assert own["mask_iou"] == [0.5, 0.5, 0.0]  # half of the box; nothing in second 5, which is silent
    assert own["sounding"] == [3, 3]
    assert boxed["box_iou"] == 0.0  # the picture of 5 s has a silent second round it
    assert revoiced["sounding"] == [0, SECONDS]
    assert (silent["masked_seconds"], silent["sounding"]) == (0, [SECONDS, SECONDS])
    figures = real_video.figures_of(rows)
    assert figures["canary: mean IoU with the hand masks"] == pytest.approx(1 / 3)
    assert figures["silent clips: seconds without a pixel and a word"] == 1.0
    assert code == 1  # the canary's target is 0.5
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert f"| {CANARY} | 6 | 4 | 3 of 3 | 0.33 | 0.00 |  | The bird. |" in table
    assert "| off screen | 6 of 6 | 0.50 |" in table
    sheet = np.array(Image.open(tmp_path / "out" / "contact_sheet_1.png"))
    assert (sheet == pictures.TRUE_COLOUR).all(-1).any()


def test_a_folder_without_annotations_is_refused(modules, tmp_path, monkeypatch, capsys):
    real_video, _ = modules
    monkeypatch.setattr(real_video, "_predictor", lambda args: Marksman())
    assert real_video.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "annotations/clips.csv" in capsys.readouterr().err


def test_the_sentence_of_most_seconds(modules):
    assert modules[0].commonest(["", "a", "b", "b", ""]) == "b"
    assert modules[0].commonest(["", ""]) == ""
