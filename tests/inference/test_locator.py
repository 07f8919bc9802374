"""T-VSL on a video, second by second: a stand-in for the model lights what the picture of the second tells it to."""

import jax.numpy as jnp
import numpy as np
import pytest
from small_videos import make_video, tone

from ssu_jax.config import sizes
from ssu_jax.inference import describing, loading, locator
from ssu_jax.inference.locator import Locator, box_of, sound_windows
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.types import UserError

CLASSES = ("bell", "dog", "drum", "horn", "whistle")
CELLS = 4  # of the stand-in's grid, each way
PROBABILITIES = (0.9, 0.7, 0.5, 0.2)
SECONDS, SILENT = 10, 3


def config(mode="corrected"):
    made, small = sizes.tvsl(), sizes.tiny()
    made.model, made.data.image_size, made.data.classes = small.model, small.data.image_size, CLASSES
    made.tvsl.mode = mode
    return made.validate()


def second_of(picture) -> int:
    """small_videos writes the time into the last quarter."""
    return round((float(picture[20:30, 20:30].mean()) - 16) / 2 - 5) // 10


class StandIn:
    """In second s a word of row k is at row k and column s % 4 of the grid; dark in second 5."""

    def __init__(self):
        self.pictures, self.sound, self.ids, self.most = [], [], [], None

    def heat(self, pictures, count):
        heat = np.zeros((len(pictures), count, CELLS, CELLS), np.float32)
        for row, picture in enumerate(pictures):
            for word in range(count):
                heat[row, word, word, second_of(picture) % CELLS] = second_of(picture) != 5
        return jnp.asarray(heat), jnp.tile(jnp.asarray(PROBABILITIES[:count]), (len(pictures), 1))

    def make_find(self, model, most):
        self.most = most

        def find(params, pictures, sound):
            self.pictures.append(pictures)
            self.sound.append(sound)
            return *self.heat(pictures, most), jnp.tile(jnp.asarray([2, 0, 4, 1]), (len(pictures), 1))

        return find

    def make_locate_words(self, model):
        def locate(params, pictures, sound, ids):
            self.pictures.append(pictures)
            self.ids.append(ids)
            return self.heat(pictures, len(ids))

        return locate


@pytest.fixture
def stand_in(monkeypatch):
    made = StandIn()
    monkeypatch.setattr(locator.locating, "make_find", made.make_find)
    monkeypatch.setattr(locator.locating, "make_locate_words", made.make_locate_words)
    return made


def made_locator(mode="corrected", remark=""):
    return Locator(config(mode), {}, Tokenizer.train(CLASSES, 16), remark)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """48 x 64, ten seconds, of which one is silent."""
    sound = tone(SECONDS, 16000)
    sound[SILENT * 16000 : (SILENT + 1) * 16000] = 0
    path = tmp_path_factory.mktemp("video") / "ten.mkv"
    return make_video(path, seconds=SECONDS, sound=sound, rate=16000, codecs=("libx264", "pcm_s16le"))


@pytest.fixture(scope="module")
def mute(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("video") / "mute.mp4", seconds=1, sound=None)


def box_at(row, column, high, wide, height=48, width=64):
    """Around a lit cell after bilinear enlargement, cut at 0.3: 0.69 cells to each side of its middle."""
    reach = [round(0.69 * side) for side in (wide, high)]
    left, top = wide * column + wide // 2 - reach[0], high * row + high // 2 - reach[1]
    right, bottom = left + 2 * reach[0], top + 2 * reach[1]
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


@pytest.mark.parametrize(
    ("count", "length", "wanted"),
    [
        (3, 1, ["0", "1", "2"]),
        (5, 3, ["012", "012", "123", "234", "234"]),
        (6, 4, ["0123", "0123", "0123", "1234", "2345", "2345"]),
        (4, 2, ["01", "01", "12", "23"]),
        (3, 3, ["012", "012", "012"]),
        (2, 5, ["01010", "01010"]),
        (1, 3, ["000"]),
        (0, 3, []),
    ],
)
def test_the_sound_around_each_second(count, length, wanted):
    found = list(sound_windows((np.full(2, number, np.int16) for number in range(count)), length))
    assert [own.tolist() for _, own in found] == [[number] * 2 for number in range(count)]
    assert [window.tolist() for window, _ in found] == [[int(one) for one in row for _ in "xy"] for row in wanted]


def test_windows_are_given_as_soon_as_their_sound_is_there():
    read = []
    windows = sound_windows((read.append(number) or np.zeros(1, np.int16) for number in range(9)), 3)
    next(windows), next(windows)
    assert read == [0, 1, 2]
    next(windows)
    assert read == [0, 1, 2, 3]


def test_box_of_a_mask():
    mask = np.zeros((4, 6), bool)
    assert box_of(mask) is None
    mask[1, 2] = True
    assert box_of(mask) == (2, 1, 3, 2)
    mask[3, 5] = True
    assert box_of(mask) == (2, 1, 6, 4)


def test_words_that_are_found_above_one_half_the_likeliest_first(stand_in, video):
    described = made_locator().predict(video)
    found = list(described.predictions)
    assert stand_in.most == locator.MOST_FOUND == 4
    assert [one.second for one in found] == list(range(SECONDS))
    assert described.text == ()
    for one in found:
        if one.second == SILENT:
            assert one.words == ()
            continue
        assert [(word.word, round(word.score, 6)) for word in one.words] == [("drum", 0.9), ("bell", 0.7)], (
            "one half is not above one half"
        )
        for row, word in enumerate(one.words):
            assert word.box == (None if one.second == 5 else box_at(row, one.second % CELLS, 12, 16))
            assert word.heat.shape == word.mask.shape == (48, 64)
            np.testing.assert_array_equal(word.mask, word.heat > 0.3)
    assert described.notes == [
        "heard, its source in the picture: bell (0:00 to 0:03, 0:04 to 0:05, 0:06 to 0:10); drum (0:00 to 0:03, 0:04 "
        "to 0:05, 0:06 to 0:10)"
    ]


def test_programs_are_made_once_for_all_videos(stand_in, video, monkeypatch):
    made = []
    for name in ("make_find", "make_locate_words"):
        make = getattr(locator.locating, name)
        monkeypatch.setattr(locator.locating, name, lambda *given, make=make: made.append(make) or make(*given))
    one = made_locator()
    for text in (None, None, "bell", "bell, drum"):
        list(one.predict(video, text=text).predictions)
    assert len(made) == 2


def test_every_call_has_eight_seconds_and_none_is_seen_twice(stand_in, video):
    list(made_locator().predict(video).predictions)
    assert [[second_of(one) for one in group] for group in stand_in.pictures] == [[*range(8)], [8] + [9] * 7]
    assert {sound.shape for sound in stand_in.sound} == {(8, 1, 96, 64)}
    assert {sound.dtype for sound in stand_in.sound} == {np.dtype(np.float32)}
    loudness = np.concatenate(stand_in.sound).mean(axis=(1, 2, 3))[:SECONDS]
    assert loudness.argmin() == SILENT


def test_a_second_is_the_union_of_its_words(stand_in, video):
    found = list(made_locator().predict(video).predictions)
    for one in found:
        if one.second in (SILENT, 5):
            assert not one.mask.any()
            assert (one.caption, one.area, one.score) == ("", 0.0, 0.0)
            continue
        np.testing.assert_array_equal(one.mask, one.words[0].mask | one.words[1].mask)
        assert one.caption == "drum, bell"
        assert one.area == one.mask.mean()
        highest = np.maximum(one.words[0].heat, one.words[1].heat)
        assert one.score == pytest.approx(highest[one.mask].mean())
        assert one.seconds == one.second + 0.5


def test_words_that_are_given_all_come_back_in_their_order(stand_in, video):
    described = made_locator().predict(video, text="Dog,  whistle, dog, bell , horn")
    assert described.text == ("dog", "whistle", "bell", "horn")
    found = list(described.predictions)
    tokenizer = Tokenizer.train(CLASSES, 16)
    np.testing.assert_array_equal(stand_in.ids[0], np.stack([tokenizer.encode(word, 3) for word in described.text]))
    for one in found:
        expected = () if one.second == SILENT else described.text
        assert tuple(word.word for word in one.words) == expected
        assert [round(word.score, 6) for word in one.words] == list(PROBABILITIES[: len(expected)])
        assert one.caption == ("" if one.second in (SILENT, 5) else "dog, whistle, bell, horn")


def test_what_was_never_found_is_told(stand_in, video, monkeypatch):
    def heat(pictures, count):
        values, probabilities = StandIn.heat(stand_in, pictures, count)
        return values.at[:, 1:].set(0.29), probabilities

    monkeypatch.setattr(stand_in, "heat", heat)
    described = made_locator().predict(video, text="bell, horn, drum")
    found = list(described.predictions)
    assert [word.box is None for word in found[0].words] == [False, True, True]
    assert found[0].caption == "bell"
    assert described.notes[-1] == "never found: horn, drum"
    assert described.notes[0].startswith("heard, its source in the picture: bell (0:00 to 0:03")


def test_silence_is_told_and_the_model_is_not_asked(stand_in, tmp_path):
    path = make_video(tmp_path / "still.mp4", seconds=2, sound=tone(2, 48000, amplitude=0.0))
    described = made_locator().predict(path)
    assert not any(one.words or one.mask.any() for one in described.predictions)
    assert not stand_in.pictures
    assert described.notes == ["the sound is silent: no word is found"]


def test_boxes_are_in_pixels_of_the_video_as_it_is_shown(stand_in, tmp_path):
    path = make_video(tmp_path / "turned.mp4", seconds=1, rotation=90)
    described = made_locator().predict(path, text="bell, dog")
    info, (one,) = described.info, list(described.predictions)
    assert (info.height, info.width) == one.mask.shape == (64, 48)
    column = second_of(stand_in.pictures[0][0]) % CELLS  # turned: what it reads is another quarter
    assert [word.box for word in one.words] == [box_at(row, column, 16, 12, 64, 48) for row in range(2)]


def test_mode_released_is_told_and_its_maps_stay_between_zero_and_one(stand_in, video):
    described = made_locator("released", remark="the weights are random").predict(video, text="bell")
    assert described.notes == [
        "mode released: as the public code behaves, whose maps say nothing of whether a word sounds",
        "the weights are random",
    ]
    first = next(iter(described.predictions))
    (word,) = first.words
    assert word.heat.min() == 0.0
    assert word.heat.max() == 1.0, "bicubic enlargement overshoots"
    np.testing.assert_array_equal(word.mask, word.heat > 0.3)
    assert 0.3 < first.score <= 1.0


def test_sound_below_the_rate_of_the_published_encoder_is_told(stand_in, video):
    locator = made_locator()
    locator.config.data.sample_rate = 44100
    assert not any("Hz" in note for note in locator.predict(video, text="bell").notes)
    locator.config.tvsl.trio = "audioclip"
    note = locator.predict(video, text="bell").notes[-1]
    assert note == "its sound has 16000 Hz, the sound encoder knows 44100 Hz: above 8000 Hz it hears nothing"


def refusal(run, *arguments, **options) -> str:
    with pytest.raises(UserError) as error:
        run(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_refusals(stand_in, video, mute):
    ready = made_locator()
    said = refusal(ready.predict, video, text="bell, whisle")
    assert "does not know 'whisle'" in said
    assert "whistle" in said
    assert "names nothing" in refusal(ready.predict, video, text=" , ")
    assert f"{mute} has no sound" in refusal(ready.predict, mute)
    wrong = config()
    wrong.family = "ssuformer"
    assert "holds family ssuformer" in refusal(Locator, wrong, {}, None)


def test_describing_takes_a_locator_for_t_vsl_and_knows_its_kinds(stand_in, video, mute, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        Locator, "from_checkpoint", classmethod(lambda cls, place=None: asked.append(place) or made_locator())
    )
    monkeypatch.setattr(loading, "family_of", lambda place: "tvsl")
    describing.describe_videos([video], tmp_path, only="json,heat", checkpoint="runs/mine")
    describing.describe_videos([video], tmp_path, only="vtt", model="tvsl", text="bell")
    assert asked == ["runs/mine", None]
    printed = capsys.readouterr().out
    assert "(prediction.json, heat/)" in printed
    assert "note: heard, its source in the picture: bell" in printed
    assert (tmp_path / "ten" / "captions.vtt").read_text().count("\nbell\n") == 8
    assert "has no sound" in refusal(describing.describe_videos, [mute], tmp_path, model="tvsl")
    assert not (tmp_path / "mute").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"only": "heat"}, "--only heat: this model gives json, vtt, masks, overlay; T-VSL has heat maps"),
        ({"model": "tvsl", "text": ","}, "names nothing"),
        ({"model": "tvsl", "checkpoint": "shipped:nano"}, "the checkpoint holds family ssuformer"),
        ({"model": "ssuformer", "checkpoint": "shipped:tvsl"}, "the checkpoint holds family tvsl"),
    ],
)
def test_models_and_options_that_do_not_fit(video, tmp_path, options, said):
    assert said in refusal(describing.describe_videos, [video], tmp_path, **options)
    assert not (tmp_path / "ten").exists()
