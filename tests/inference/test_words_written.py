"""What is written of single words: run lengths, a folder and a colour each, whatever the words are."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths
from small_videos import make_video

from ssu_jax.data import survey
from ssu_jax.inference import outputs
from ssu_jax.inference.described import Described, LocatedWord, SecondPrediction
from ssu_jax.inference.locator import box_of
from ssu_jax.visualization.overlay import Annotator, Layout
from ssu_jax.visualization.pictures import WORD_COLOURS

HEIGHT, WIDTH, SECONDS = 48, 64, 3
HARD = ("a/b", "a b", "..", ".", "a.b", "a%2Fb", "../../x", "münze", "鐘", "00000.png", "con\x00", "a\\b")


def located(word: str, number: int, second: int) -> LocatedWord:
    """Word 0 is absent in second 1; each has rows of its own."""
    heat = np.zeros((HEIGHT, WIDTH), np.float32)
    if number or second != 1:
        heat[3 * number : 3 * number + 3, 8 * second : 8 * second + 10] = 0.5 + 0.1 * second
    return LocatedWord(word, heat, heat > 0.3, box_of(heat > 0.3), 0.25 * second)


def described(path, words) -> Described:
    info = survey.survey(path)

    def predictions():
        for second in range(info.num_seconds):
            here = tuple(located(word, number, second) for number, word in enumerate(words))
            mask = np.any([word.mask for word in here] or np.zeros((1, HEIGHT, WIDTH), bool), axis=0)
            caption = ", ".join(word.word for word in here if word.box)
            yield SecondPrediction(second, info.time_of(second), caption, mask, float(mask.mean()), 0.5, here)

    return Described(info, predictions(), [], tuple(words))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("video") / "three.mp4", seconds=SECONDS)


def grey(path) -> np.ndarray:
    return np.array(Image.open(path))


def test_words_in_prediction_json(video, tmp_path):
    words = ("bell", "käse glocke")
    outputs.write(described(video, words), tmp_path, ["json"])
    found = json.loads((tmp_path / "prediction.json").read_text())
    assert found["text"] == list(words)
    for second, frame in enumerate(found["frames"]):
        assert [word["word"] for word in frame["words"]] == list(words)
        for number, word in enumerate(frame["words"]):
            wanted = located(words[number], number, second)
            assert list(word) == ["word", "score", "box", "area", "mask"]
            assert word["mask"]["size"] == [HEIGHT, WIDTH]
            np.testing.assert_array_equal(run_lengths.decode(word["mask"]), wanted.mask)
            assert word["area"] == wanted.mask.mean()
            assert word["score"] == wanted.score
            assert word["box"] == (None if wanted.box is None else list(wanted.box))
        assert (frame["words"][0]["box"] is None) == (second == 1)


def test_masks_and_heat_of_each_word(video, tmp_path):
    outputs.write(described(video, ("bell", "dog")), tmp_path, ["masks", "heat"])
    files = [f"{second:05d}.png" for second in range(SECONDS)]
    assert sorted(os.listdir(tmp_path / "heat")) == ["bell", "dog"]
    assert sorted(os.listdir(tmp_path / "masks")) == [*files, "bell", "dog"]
    for number, word in enumerate(("bell", "dog")):
        assert sorted(os.listdir(tmp_path / "heat" / word)) == sorted(os.listdir(tmp_path / "masks" / word)) == files
        for second, name in enumerate(files):
            wanted = located(word, number, second)
            np.testing.assert_array_equal(grey(tmp_path / "masks" / word / name), wanted.mask * np.uint8(255))
            np.testing.assert_array_equal(grey(tmp_path / "heat" / word / name), np.rint(wanted.heat * 255))
    union = grey(tmp_path / "masks" / files[2])
    np.testing.assert_array_equal(
        union, grey(tmp_path / "masks/bell" / files[2]) | grey(tmp_path / "masks/dog" / files[2])
    )


def test_no_word_leaves_the_folder_or_takes_another_s_place(video, tmp_path):
    words = (*HARD, "x" * 300, "y" * 300, "鐘" * 100)
    out = tmp_path / "deep" / "out"
    outputs.write(described(video, words), out, ["heat"])
    assert os.listdir(tmp_path) == ["deep"]
    assert os.listdir(tmp_path / "deep") == ["out"]
    assert os.listdir(out) == ["heat"]
    assert len(os.listdir(out / "heat")) == len(words)
    shown = {grey(folder / "00002.png").any(axis=1).argmax() for folder in (out / "heat").iterdir()}
    assert shown == {3 * number for number in range(len(words))}
    assert "a b" in os.listdir(out / "heat")


def test_results_of_earlier_words_are_replaced(video, tmp_path):
    outputs.write(described(video, ("bell", "dog", "a/b")), tmp_path, ["masks", "heat"])
    (tmp_path / "heat" / "dog" / "mine.txt").write_text("kept")
    outputs.write(described(video, ("horn",)), tmp_path, ["masks", "heat"])
    assert sorted(os.listdir(tmp_path / "heat")) == ["dog", "horn"]
    assert os.listdir(tmp_path / "heat" / "dog") == ["mine.txt"]
    assert sorted(one for one in os.listdir(tmp_path / "masks") if not one.endswith(".png")) == ["horn"]
    outputs.write(described(video, ()), tmp_path, ["heat"])
    assert os.listdir(tmp_path / "heat") == ["dog"], "nothing was found"


def colours_in(annotator: Annotator, layout: Layout) -> set[int]:
    """Which of the words' colours stand pure in a drawn frame: outlines are opaque."""
    black = np.zeros((layout.picture_height, layout.picture_width, 3), np.uint8)
    drawn = annotator.draw(black, -60.0)[: layout.picture_height].astype(int)
    return {number for number, colour in enumerate(WORD_COLOURS) if (np.abs(drawn - colour).sum(-1) == 0).any()}


def test_a_word_keeps_its_colour_when_it_comes_back(video, monkeypatch, tmp_path):
    """Bell sounds in seconds 0 and 2, dog in all; each second's colours are seen where the frames are drawn."""
    layout, drawn = Layout.for_size(HEIGHT, WIDTH), []
    begin = Annotator.begin_second

    def begin_second(self, mask, caption, words=()):
        begin(self, mask, caption, words)
        drawn.append(({word: colour for word, _, colour in words}, colours_in(self, layout)))

    monkeypatch.setattr(Annotator, "begin_second", begin_second)
    outputs.write(described(video, ("bell", "dog")), tmp_path, ["overlay"])
    both = {"bell": WORD_COLOURS[0], "dog": WORD_COLOURS[1]}
    assert drawn == [(both, {0, 1}), ({"dog": WORD_COLOURS[1]}, {1}), (both, {0, 1})]
    assert (tmp_path / "overlay.mp4").stat().st_size > 1000
    assert len(set(WORD_COLOURS)) == len(WORD_COLOURS) == 8
