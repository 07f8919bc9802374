"""Seconds out of the middle of a video: the same pictures and sound as when all of it is read."""

import dataclasses

import numpy as np
import pytest
from small_videos import grey_at, make_video, tone

from ssu_jax.data import media, survey, video
from ssu_jax.types import UserError

RATE = 16000


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """14 s with a single key picture, so that every piece begins far from one; a rising tone."""
    time = np.arange(14 * 48000) / 48000
    sweep = (9000 * np.sin(2 * np.pi * (300 * time + 20 * time**2))).astype(np.int16)

    def make(name, **options):
        path = tmp_path_factory.mktemp("long") / name
        return make_video(path, seconds=14, fps=10, sound=sweep, **options)

    return make


@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("a.mp4", ("libx264", "aac")),
        ("a.mkv", ("libx264", "aac")),
        ("a.avi", ("mpeg4", "mp3")),
        ("a.mpg", ("mpeg2video", "mp2")),
    ],
)
def test_a_piece_is_what_lies_there_when_all_is_read(name, codecs, long):
    path = long(name, codecs=codecs) if name != "a.mpg" else make_video(
        long("b.mp4").with_name(name), seconds=14, fps=25, codecs=codecs, sound=tone(14)
    )  # fmt: skip
    info = survey.glance(path)
    whole, sound = video.excerpt(info, 0, 14, 1000, RATE)
    assert whole.shape == (14, 48, 64, 3)
    everything = np.concatenate(list(video.second_sounds(survey.survey(path), RATE)))
    np.testing.assert_array_equal(sound, everything[: len(sound)])
    for begin, seconds in ((6, 5), (12, 2)):
        frames, piece = video.excerpt(info, begin, seconds, 1000, RATE)
        np.testing.assert_array_equal(frames, whole[begin : begin + seconds])
        # The resampler begins at another phase of its filter, and Matroska's clock ticks a thousand times a second.
        slack = RATE // 1000 if name == "a.mkv" else 0
        padded = np.pad(sound.astype(float), slack)[begin * RATE :]
        errors = [((piece - padded[lag : lag + len(piece)]) ** 2).sum() for lag in range(2 * slack + 1)]
        assert min(errors) < 0.02 * (piece.astype(float) ** 2).sum()


def test_pictures_are_those_of_the_moments_asked_for(long):
    info = survey.glance(long("a.mp4"))
    for begin, moments in ((0.0, None), (3.5, None), (7.0, [0.0, 0.9, 0.25])):
        frames, _ = video.excerpt(info, begin, 3, 1000, RATE, moments)
        for second, frame in enumerate(frames):
            at = begin + second + (0.5 if moments is None else moments[second])
            assert abs(int(frame[-5, -5, 0]) - grey_at(at)) < 4


def test_the_end_counts_from_half_a_second_on(tmp_path):
    for tail, count in ((12.4, 2), (12.6, 3)):
        info = survey.glance(make_video(tmp_path / f"{tail}.mp4", seconds=tail))
        frames, sound = video.excerpt(info, 10, 10, 1000, RATE)
        assert len(frames) == count
        assert len(sound) == count * RATE
    with pytest.raises(UserError, match=r"12\.6\.mp4: its pictures end at 12\.60 s, a clip from 13 s on has none"):
        video.excerpt(info, 13, 10, 1000, RATE)
    with pytest.raises(UserError, match="cannot begin at -1 s"):
        video.excerpt(info, -1, 10, 1000, RATE)


@pytest.mark.parametrize(("size", "rotation", "shown"), [((48, 64), 0, (24, 32)), ((64, 48), 90, (24, 32))])
def test_the_shape_is_kept_and_the_shorter_side_reduced(size, rotation, shown, tmp_path):
    info = survey.glance(make_video(tmp_path / "a.mp4", size=size, rotation=rotation))
    assert video.excerpt(info, 0, 2, 24, RATE)[0].shape == (2, *shown, 3)
    assert video.excerpt(info, 0, 2, 100, RATE)[0].shape == (2, *(2 * side for side in shown), 3)  # never enlarged


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    info = survey.glance(make_video(tmp_path / "a.mp4", aspect=2))
    assert video.excerpt(info, 0, 1, 24, RATE)[0].shape == (1, 24, 64, 3)


def test_late_and_absent_sound_is_silence(tmp_path):
    info = survey.glance(make_video(tmp_path / "none.mp4", seconds=4, sound=None))
    assert not video.excerpt(info, 1, 2, 48, RATE)[1].any()
    info = survey.glance(make_video(tmp_path / "late.mp4", seconds=6, sound=tone(3), sound_start=2.5))
    sound = video.excerpt(info, 2, 3, 48, RATE)[1]
    assert not sound[: RATE // 2 - 400].any()
    assert np.abs(sound[RATE // 2 + 400 : RATE]).max() > 6000


def test_a_cut_file_is_told_at_its_end_and_not_before(tmp_path):
    path = make_video(tmp_path / "a.mkv", seconds=30)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    info = survey.glance(path)
    assert len(video.excerpt(info, 2, 5, 48, RATE)[0]) == 5
    with pytest.raises(UserError, match=r"a\.mkv: truncated: it announces 30\.\d s"):
        video.excerpt(info, 20, 10, 48, RATE)


def test_a_glance_agrees_with_a_survey_of_the_whole(tmp_path):
    for name in ("a.mp4", "a.mkv", "a.webm", "a.avi"):
        codecs = {"webm": ("libvpx", "libopus"), "avi": ("mpeg4", "mp3")}.get(name[2:], ("libx264", "aac"))
        path = make_video(tmp_path / name, seconds=3, codecs=codecs)
        glance, whole = survey.glance(path), survey.survey(path)
        assert glance.duration_seconds == pytest.approx(whole.duration_seconds, abs=0.11)
        assert (glance.height, glance.width, glance.start) == (whole.height, whole.width, whole.start)
        assert (glance.sample_rate, glance.channels) == (whole.sample_rate, whole.channels)


def test_a_sound_file_is_no_video_and_the_other_way_round(tmp_path):
    path = make_video(tmp_path / "a.mp4")
    assert np.abs(video.file_sound(path, RATE, 2.0)).max() > 6000  # mp4 holds sound too
    with pytest.raises(UserError, match="no such file"):
        video.file_sound(tmp_path / "absent.wav", RATE, 1.0)
    with (
        pytest.raises(UserError, match="not a sound that can be read"),
        media.open_media(make_video(tmp_path / "a.avi", codecs=("mpeg4", "mp3")), media.SOUND_CONTAINERS),
    ):
        pass
    assert len(video.file_sound(path, RATE, 0.5)) == RATE // 2


def test_pictures_that_end_long_before_the_header_says_are_a_fault(tmp_path):
    """What damage leaves where a demuxer steps over it in silence: the sound goes on without the pictures."""
    path = make_video(tmp_path / "lost.mkv", seconds=3, sound=tone(8))
    honest = survey.glance(path)
    assert len(video.excerpt(honest, 0, 8, 48, RATE)[0]) == 3  # sound that outlasts the pictures is no fault
    announced = dataclasses.replace(honest, duration_seconds=8.0)
    with pytest.raises(UserError, match=r"lost.mkv: announces 8.0 s, its pictures end at 3.0 s"):
        video.excerpt(announced, 0, 8, 48, RATE)
    assert len(video.excerpt(announced, 0, 2, 48, RATE)[0]) == 2  # whole as far as it is read
