"""The annotated clips that benchmarks/real_video.py describes: what is known of each, and copies with another sound."""

import csv
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator, Sequence

import av
import numpy as np
import scipy.io.wavfile
from PIL import Image

from ssu_jax.data import survey, video
from ssu_jax.types import UserError

WANTED = pathlib.Path(__file__).with_name("real_clips.json")
BOX_SECONDS = 5  # VGG-SS draws its boxes on this picture
SOUNDS = {"gt": "alone", "int": "off screen", "mix": "both"}  # NAME.gt.wav, ...: whose sound it is
NOBODY = ("silent audio stream", "no audio stream", "off screen")  # in clips.csv: nothing in the picture sounds
RATE = 16_000


@dataclasses.dataclass
class Case:
    """A file to describe, and what is known of it.

    sound: whose it is.  nobody: True where nothing in the picture sounds.  masks: second -> true mask.
    boxes: (x1, y1, x2, y2) in fractions, of the picture of second `box_second`.  wanted: see real_clips.json.
    """

    name: str
    path: pathlib.Path
    sound: str = "own"
    nobody: bool = False
    masks: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    boxes: np.ndarray | None = None
    wanted: dict = dataclasses.field(default_factory=dict)

    @property
    def box_second(self) -> int:
        """Of a clip that `_shifted` has moved so that a second's picture is the one the boxes were drawn on."""
        return BOX_SECONDS - 1


def cases_of(data: pathlib.Path, folder: pathlib.Path, words: Sequence[str] = ("",)) -> Iterator[Case]:
    """The clips of clips.csv, those with a changed sound, and those moved to the picture with boxes (both in `folder`).

    words: only clips whose file name holds one of them. Raises UserError where the annotations are missing.
    """
    annotations = data / "annotations"
    try:
        with open(annotations / "clips.csv", encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"--data {data} holds no annotations/clips.csv that can be read: {error.strerror}") from error
    masks = _json_of(annotations / "hand_masks" / "hand_masks.json")
    boxes, wishes = _json_of(annotations / "vggss_boxes_of_our_clips.json"), _json_of(WANTED)
    for line in lines:
        path = data / line["file"]
        if not any(word in path.stem for word in words):
            continue
        case = Case(path.stem, path, nobody=any(word in line["source_class"] for word in NOBODY))
        case.wanted = wishes.get(line["file"], {})
        for one in masks.get(path.stem, ()):
            second = one["frame"] if "frame" in one else int(one["t"])
            case.masks[second] = np.array(Image.open(annotations / one["mask"]).convert("L")) > 127
        yield case
        if line["file"] in boxes:
            moved = _shifted(path, folder / f"{path.stem}.mkv")
            fractions = np.array(boxes[line["file"]]["bbox"], np.float64)
            yield Case(path.stem, moved, sound="own, boxes at 5 s", boxes=fractions)
        for suffix, whose in SOUNDS.items():
            if (sound := path.with_suffix(f".{suffix}.wav")).exists():
                changed = _with_sound(path, sound, folder / f"{path.stem}.{suffix}.mkv")
                yield dataclasses.replace(case, path=changed, sound=whose, nobody=suffix == "int")


def _json_of(path: pathlib.Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))["clips"] if path.exists() else {}


def _with_sound(path: pathlib.Path, sound: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """The clip, a picture a second, with a .wav for its sound."""
    info = survey.survey(path)
    rate, samples = scipy.io.wavfile.read(sound)
    if samples.dtype.kind == "f":
        samples = np.rint(np.clip(samples, -1, 1) * 32767)
    shown = pictures_at(info, [info.time_of(second) for second in range(info.num_seconds)])
    return _write(out, shown, samples.astype(np.int16), rate)


def _shifted(path: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """The clip from half a second on, so that the middle of second k shows what was shown at k + 1."""
    info = survey.survey(path)
    sound = np.concatenate(list(video.second_sounds(info, RATE)))[RATE // 2 :]
    return _write(out, pictures_at(info, [float(second) for second in range(1, info.num_seconds)]), sound, RATE)


def _write(path: pathlib.Path, shown: Iterator[np.ndarray], sound: np.ndarray, rate: int) -> pathlib.Path:
    """A picture a second and mono sound, both without loss; sound beyond the last picture is left out."""
    first, count = next(shown), 0
    with av.open(str(path), "w", format="matroska") as container:
        pictured, heard = container.add_stream("ffv1", rate=1), container.add_stream("pcm_s16le", rate, layout="mono")
        pictured.pix_fmt, (pictured.height, pictured.width) = "bgr0", first.shape[:2]
        for second, picture in enumerate(itertools.chain([first], shown)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")
            frame.pts, count = second, second + 1
            container.mux(pictured.encode(frame))
        container.mux(pictured.encode(None))
        sound = np.ascontiguousarray(sound[None, : count * rate])
        frame = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        container.mux(heard.encode(frame))
        container.mux(heard.encode(None))
    return path


def pictures_at(info: survey.VideoInfo, times: list[float]) -> Iterator[np.ndarray]:
    """The picture that is shown at each of the times, which grow, upright and whole."""
    times, shown = list(times), None
    for seconds, frame in video.pictures(info):
        while times and shown is not None and seconds > times[0] + 1e-3:
            yield video.upright(info, shown)
            times.pop(0)
        shown = frame
    for _ in times:
        yield video.upright(info, shown)
