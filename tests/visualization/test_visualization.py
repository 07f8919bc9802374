"""Pictures for people: masks where they belong, text that can be read, meters that tell the level, videos in step."""

import errno

import av
import numpy as np
import pytest

from ssu_jax.types import Clip, SoundObject, UserError
from ssu_jax.visualization import pictures, writer
from ssu_jax.visualization.overlay import MAX_SIDE, MIN_WIDTH, Annotator, Layout


def disc(height=60, width=80, centre=(30, 40), radius=12):
    rows, columns = np.mgrid[:height, :width]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def test_a_mask_is_filled_outlined_and_nothing_else_changes():
    frame = np.full((60, 80, 3), 100, np.uint8)
    mask = disc()
    drawn = pictures.draw_mask(frame, mask, (200, 0, 0))
    assert (frame == 100).all(), "the frame that was given must stay as it is"
    changed = (drawn != 100).any(-1)
    assert changed[mask].all()
    assert not changed[~disc(radius=14)].any(), "beyond the dark line around it nothing changes"
    np.testing.assert_array_equal(drawn[30, 40], [100 * 0.62 + 200 * 0.38, 62, 62])
    np.testing.assert_allclose(drawn[30, 28], [200, 0, 0], atol=1)  # the outermost pixel of the row through the middle


def test_a_mask_at_the_border_is_outlined_there_too():
    mask = np.zeros((20, 20), bool)
    mask[:, :10] = True
    drawn = pictures.draw_mask(np.zeros((20, 20, 3), np.uint8), mask, (0, 0, 255))
    outline = drawn[..., 2] >= 254
    assert outline[0, :10].all()
    assert outline[:, 0].all()
    assert outline[-1, :10].all()
    assert outline[:, 9].all()
    assert not outline[2:-2, 2:8].any()


def test_an_empty_mask_draws_nothing():
    frame = np.random.default_rng(0).integers(0, 255, (10, 12, 3), np.uint8)
    np.testing.assert_array_equal(pictures.draw_mask(frame, np.zeros((10, 12), bool)), frame)


def test_text_is_drawn_whole_whatever_its_length():
    empty = pictures.text_strip("", 300, 40, 16)
    assert (empty == pictures.BACKGROUND_COLOUR).all()
    short = pictures.text_strip("The red bell is ringing.", 300, 40, 16)
    rows, columns = np.nonzero(short.max(-1) > 200)
    assert rows.size > 100, "bright letters"
    assert columns.min() > 20
    assert abs(columns.min() - (300 - columns.max())) < 6, "centred"
    long = pictures.text_strip("The siren, the drum and the bird are sounding together. " * 3, 300, 60, 16)
    rows, columns = np.nonzero(long.max(-1) > 150)
    assert rows.min() > 0
    assert rows.max() < 59
    assert columns.min() > 0
    assert columns.max() < 299
    np.testing.assert_array_equal(
        pictures.text_strip("a\x00b\n c", 90, 30, 12), pictures.text_strip("a b c", 90, 30, 12)
    )


def words_shown(strip) -> dict[int, tuple[int, int, int, int]]:
    """Left, top, right, bottom of what stands in each of the words' colours."""
    places = {}
    for number, colour in enumerate(pictures.WORD_COLOURS):
        rows, columns = np.nonzero(np.abs(strip.astype(int) - colour).sum(-1) < 60)
        if rows.size:
            places[number] = (columns.min(), rows.min(), columns.max(), rows.max())
    return places


def coloured(*words):
    return list(zip(words, pictures.WORD_COLOURS, strict=False))


def test_words_stand_side_by_side_each_in_its_colour():
    places = words_shown(pictures.word_strip(coloured("bell", "dog", "horn"), 480, 24, 17))
    assert list(places) == [0, 1, 2]
    assert places[0][2] + 10 < places[1][0]
    assert places[1][2] + 10 < places[2][0]
    assert abs(places[0][0] - (479 - places[2][2])) < 6, "centred"


@pytest.mark.parametrize("count", [1, 4, 8])
def test_all_words_are_in_the_strip_however_long(count):
    words = (
        "alligators, crocodiles hissing", "playing acoustic guitar", "police radio chatter", "people belly laughing",
        "typing on computer keyboard", "chainsawing trees", "barn swallow calling", "air conditioning noise",
    )  # fmt: skip
    places = words_shown(pictures.word_strip(coloured(*words[:count]), 480, 24, 17))
    assert list(places) == list(range(count))
    for left, top, right, bottom in places.values():
        assert 0 < left < right < 479
        assert 0 <= top < bottom <= 23
    one_line = places[0][3] if count < 8 else 12
    assert all((place[1] > 11) == (place[3] > one_line + 3) for place in places.values())


def test_a_word_that_no_type_makes_fit_begins_at_the_left():
    columns = np.flatnonzero((pictures.word_strip(coloured("x" * 400), 480, 24, 17) > 100).any(axis=(0, 2)))
    assert 0 < columns[0] < 10
    assert columns[-1] > 470
    assert (pictures.word_strip(coloured("\x00"), 90, 24, 17) == pictures.BACKGROUND_COLOUR).all()


def test_levels():
    sine = np.sin(2 * np.pi * np.arange(16000) / 100)
    assert pictures.level_of(sine) == pytest.approx(-3.01, abs=0.01)
    assert pictures.level_of((sine * 3276.8).astype(np.int16)) == pytest.approx(-23.01, abs=0.02)
    assert pictures.level_of(np.zeros(100, np.int16)) == -120.0
    assert pictures.level_of(np.zeros(0, np.int16)) == -120.0


@pytest.mark.parametrize(("level_db", "share"), [(0, 1), (-30, 0.5), (-60, 0), (-120, 0), (6, 1)])
def test_the_meter_is_lit_up_to_the_level(level_db, share):
    meter, unlit = pictures.level_meter(level_db, 200, 14), pictures.level_meter(-120, 200, 14)
    lit = (meter[0] != unlit[0]).any(-1)
    assert lit[: int(200 * share)].all()
    assert not lit[int(200 * share) :].any()


def test_the_contact_sheet_shows_truth_above_and_prediction_below():
    frames = np.zeros((3, 40, 40, 3), np.uint8)
    masks = np.zeros((3, 40, 40), np.uint8)
    masks[1, 10:30, 10:30] = 1
    sheet = pictures.picture(frames, masks, np.zeros_like(masks), ["", "The bell rings.", ""], ["", "", "Wrong."])
    height, width = sheet.shape[0] // 2, sheet.shape[1] // 3
    cells = [[sheet[r * height : (r + 1) * height, c * width : (c + 1) * width] for c in range(3)] for r in range(2)]
    green = [[(cell[..., 1].astype(int) - cell[..., 0] > 60).sum() for cell in row] for row in cells]
    assert green[0][1] > 500
    assert green[0][0] == green[0][2] == green[1][1] == 0
    amber = (cells[1][2][..., 0].astype(int) - cells[1][2][..., 2] > 60).sum()
    assert amber > 50, "the wrong sentence is written under its frame"


@pytest.mark.parametrize("size", [(96, 96), (720, 1280), (1280, 720), (2160, 3840), (9, 1000), (1000, 9), (47, 65)])
def test_layouts_are_even_and_hold_the_picture(size):
    layout = Layout.for_size(*size)
    assert all(side % 2 == 0 for side in (layout.height, layout.width, layout.picture_height, layout.picture_width))
    assert max(layout.picture_height, layout.picture_width) <= MAX_SIDE
    assert layout.width >= MIN_WIDTH
    annotator = Annotator(layout)
    annotator.begin_second(np.ones(size, bool), "The red bell on the left is ringing.")
    frame = np.zeros((layout.picture_height, layout.picture_width, 3), np.uint8)
    assert annotator.draw(frame, -10.0).shape == (layout.height, layout.width, 3)


def two_second_clip():
    """A white square and a loud tone in the second second only."""
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    frames[1] = 255
    sound = np.zeros(32000, np.int16)
    sound[16000:] = (8000 * np.sin(np.arange(16000) / 5)).astype(np.int16)
    masks = np.zeros((2, 32, 32), bool)
    bell = SoundObject("bell", np.array([False, True]), True, masks)
    return Clip("a", frames, np.array([0.5, 1.5]), sound, 16000, np.ones(2, bool), ("", "It rings."), (bell,))


def test_the_preview_keeps_picture_sound_and_sentence_in_step(tmp_path):
    writer.write_preview(tmp_path / "p.mp4", [two_second_clip(), two_second_clip()])
    with av.open(str(tmp_path / "p.mp4")) as container:
        pairs = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        duration = float(container.streams.video[0].duration * container.streams.video[0].time_base)
    assert duration == pytest.approx(4.0, abs=0.01)
    assert len(pairs) == 4 * writer.PREVIEW_FRAMES_PER_SECOND
    for time, image in pairs:
        rings = int(time + 1e-6) % 2 == 1
        assert (image[:400].mean() > 128) == rings
        assert (image[-20:].max() > 150) == rings, "the sentence stands exactly while it rings"
    with av.open(str(tmp_path / "p.mp4")) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    loud = np.flatnonzero(np.abs(sound) > 0.1) / 16000
    assert loud[0] == pytest.approx(1.0, abs=0.02)
    assert not ((loud > 2.03) & (loud < 2.97)).any()


def test_colours_survive_the_writing(tmp_path):
    with writer.open_video(tmp_path / "c.mp4", 64, 64) as video:
        image = np.zeros((64, 64, 3), np.uint8)
        image[:] = (200, 60, 30)
        video.write(image, 0.0, 0.5)
        video.write(image, 0.5, 0.5)
    with av.open(str(tmp_path / "c.mp4")) as container:
        stream = container.streams.video[0]
        assert not container.streams.audio
        assert stream.frames == 2
        assert float(stream.duration * stream.time_base) == pytest.approx(1.0, abs=1e-3)
        frame = next(container.decode(stream))
        assert frame.colorspace == 1, "BT.709 is said in the file"
        np.testing.assert_allclose(frame.to_ndarray(format="rgb24")[32, 32], [200, 60, 30], atol=4)


def test_a_video_that_is_not_finished_leaves_no_file(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), writer.open_video(tmp_path / "v.mp4", 64, 64) as video:
        video.write(np.zeros((64, 64, 3), np.uint8), 0.0, 1 / 0)
    assert [one.name for one in tmp_path.iterdir()] == ["v.mp4"]
    assert (tmp_path / "v.mp4").read_bytes() == b"before"


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    def full(self, packets):
        raise av.error.OSError(errno.ENOSPC, "No space left on device", "v.mp4")

    monkeypatch.setattr(writer.VideoWriter, "flush", lambda self: full(self, None))
    with pytest.raises(UserError, match="disk is full"):
        writer.write_preview(tmp_path / "v.mp4", [two_second_clip()])
    assert not list(tmp_path.iterdir())
