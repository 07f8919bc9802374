"""Video files of every kind: the right picture and the right sound for every second, or a reason in one line."""

import csv
import math
from fractions import Fraction

import av
import numpy as np
import pytest
from small_videos import grey_at, make_video, tone

from ssu_jax.data import media, survey, video
from ssu_jax.types import UserError


def pictures_of(path, size=32):
    return np.stack(list(video.second_pictures(survey.survey(path), size)))


def sounds_of(path, rate=16000):
    return np.stack(list(video.second_sounds(survey.survey(path), rate))).astype(float) / 32768


def grey_of(small):
    """Brightness of the quarter that tells the time."""
    half = small.shape[-2] // 2
    return small[..., half + 4 : -4, half + 4 : -4, :].mean(axis=(-3, -2, -1))


def level(sound):
    return np.sqrt(np.mean(sound**2, axis=-1))


@pytest.mark.parametrize(("fps", "frames"), [(14.96, 62), (32.4, 100), (1, 3), (25, 1), (10, 26), (10, 25), (10, 24)])
def test_duration_seconds_and_picture_times(tmp_path, fps, frames):
    times = [i / fps for i in range(frames)]
    info = survey.survey(make_video(tmp_path / "a.mp4", times, fps=fps, sound=None))
    assert info.duration_seconds == pytest.approx(frames / fps, abs=2e-3)
    assert info.num_seconds == max(1, math.floor(frames / fps + 0.5))
    assert info.last_picture_seconds == pytest.approx(times[-1], abs=1e-4)
    for second in range(info.num_seconds):
        assert info.time_of(second) == pytest.approx(min(second + 0.5, times[-1]), abs=1e-4)
    assert info.end_of(info.num_seconds - 1) == info.duration_seconds
    assert len(pictures_of(tmp_path / "a.mp4")) == info.num_seconds


@pytest.mark.parametrize("fps", [30, 10, 14.96, 3])
def test_the_picture_of_a_second_is_the_one_shown_in_its_middle(tmp_path, fps):
    times = [i / fps for i in range(round(4 * fps))]
    greys = grey_of(pictures_of(make_video(tmp_path / "a.mp4", times, fps=fps)))
    for second, grey in enumerate(greys):
        shown = max(time for time in times if time <= second + 0.5 + 1e-9)
        assert grey == pytest.approx(grey_at(shown), abs=1.5)


def test_variable_frame_rate(tmp_path):
    """A picture stands until the next one comes, however long that takes."""
    info = survey.survey(make_video(tmp_path / "a.mp4", [0, 0.3, 0.4, 3.2, 3.3, 4.9], fps=10, sound=None))
    assert info.num_seconds == 5
    greys = grey_of(pictures_of(tmp_path / "a.mp4"))
    np.testing.assert_allclose(greys, [grey_at(t) for t in (0.4, 0.4, 0.4, 3.3, 3.3)], atol=1.5)


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_rotated_pictures_stand_upright(tmp_path, rotation):
    """The file holds the picture turned clockwise by `rotation`; shown, red is top left again."""

    def turned(time, height, width):
        from small_videos import picture

        upright = picture(time, *((64, 48) if rotation % 180 else (48, 64)))
        return np.ascontiguousarray(np.rot90(upright, -rotation // 90))

    path = make_video(tmp_path / "a.mp4", seconds=1, rotation=rotation, drawn=turned, sound=None)
    info = survey.survey(path)
    assert (info.height, info.width) == ((64, 48) if rotation % 180 else (48, 64))
    frame = next(video.pictures(info))[1]
    shown = video.upright(info, frame).astype(int)
    assert shown.shape == (info.height, info.width, 3)
    for place, colour in (((8, 8), 0), ((8, -8), 1), ((-8, 8), 2)):
        assert shown[place][colour] > 150
        assert np.delete(shown[place], colour).max() < 100


def test_mirrored_pictures_stand_upright():
    """The four display matrices with a mirror, against the definition x' = a x + c y, y' = b x + d y."""
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for transposed in (False, True):
        for flip_x in (False, True):
            for flip_y in (False, True):
                turned = survey.Orientation(transposed, flip_x, flip_y).apply(picture)
                wanted = picture.T if transposed else picture
                wanted = wanted[:, ::-1] if flip_x else wanted
                wanted = wanted[::-1] if flip_y else wanted
                np.testing.assert_array_equal(turned, wanted)


@pytest.mark.parametrize(("size", "pix_fmt"), [((47, 65), "yuv444p"), ((36, 200), "yuv420p"), ((10, 2), "yuv420p")])
def test_odd_sizes_and_chroma(tmp_path, size, pix_fmt):
    path = make_video(tmp_path / "a.mp4", seconds=1, size=size, pix_fmt=pix_fmt)
    info = survey.survey(path)
    assert (info.height, info.width) == size
    assert pictures_of(path).shape == (1, 32, 32, 3)
    assert video.upright(info, next(video.pictures(info))[1]).shape == (*size, 3)


def test_pixel_aspect(tmp_path):
    info = survey.survey(make_video(tmp_path / "a.mp4", seconds=1, aspect=Fraction(4, 3), sound=None))
    assert (info.width, info.pixel_aspect) == (64, Fraction(4, 3))


@pytest.mark.parametrize(
    ("name", "codecs"),
    [
        ("a.mkv", ("libx264", "aac")),
        ("a.webm", ("libvpx-vp9", "libopus")),
        ("a.avi", ("mpeg4", "libmp3lame")),
        ("a.ts", ("libx264", "aac")),
        ("a.mpg", ("mpeg2video", "mp2")),
        ("a.flv", ("libx264", "aac")),
        ("a.mov", ("libx264", "pcm_s16le")),
    ],
)
def test_containers(tmp_path, name, codecs):
    """Clocks that start anywhere, headers with and without a length: the same three seconds."""
    path = make_video(tmp_path / name, seconds=3, fps=25, codecs=codecs)
    info = survey.survey(path)
    assert info.duration_seconds == pytest.approx(3.0, abs=0.09)
    np.testing.assert_allclose(grey_of(pictures_of(path)), [grey_at(t) for t in (0.5, 1.5, 2.5)], atol=4)
    assert level(sounds_of(path))[1] == pytest.approx(0.25 / math.sqrt(2), rel=0.06)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1", "7.1"])
@pytest.mark.parametrize("rate", [44100, 8000])
def test_channels_are_mixed_without_clipping(tmp_path, layout, rate):
    """What all channels carry comes out at its own level."""
    path = make_video(
        tmp_path / "a.mkv",
        layout=layout,
        rate=rate,
        sound=tone(2, rate, amplitude=0.9),
        codecs=("libx264", "pcm_s16le"),
    )
    sounds = sounds_of(path)
    assert sounds.shape == (2, 16000)
    assert level(sounds[0]) == pytest.approx(0.9 / math.sqrt(2), rel=0.03)
    assert np.abs(sounds).max() <= 0.93


def test_sound_is_laid_on_the_pictures_clock(tmp_path):
    """Late sound begins with silence, sound before the first picture is cut, and both ends are the pictures'."""
    late = sounds_of(make_video(tmp_path / "late.mkv", seconds=3, sound=tone(4), sound_start=1.25))
    assert late.shape == (3, 16000)
    assert level(late[0]) < 1e-4
    onset = np.flatnonzero(np.abs(late.ravel()) > 0.05)[0] / 16000
    assert onset == pytest.approx(1.25, abs=0.03)
    info = survey.survey(tmp_path / "late.mkv")
    assert any("starts 1.2" in note for note in info.notes)
    assert any("longer than the pictures: cut" in note for note in info.notes)

    clicks = np.zeros(48000 * 3, np.int16)
    clicks[round(1.5 * 48000) : round(1.6 * 48000)] = tone(0.1)
    early = sounds_of(make_video(tmp_path / "early.mkv", [0.5 + i / 10 for i in range(20)], sound=clicks))
    assert np.flatnonzero(np.abs(early.ravel()) > 0.05)[0] / 16000 == pytest.approx(1.0, abs=0.03)


def test_short_and_absent_sound(tmp_path):
    short = make_video(tmp_path / "short.mp4", seconds=3, sound=tone(1.5))
    assert [level(s) > 0.01 for s in sounds_of(short)] == [True, True, False]
    assert any("before the pictures" in note for note in survey.survey(short).notes)
    absent = make_video(tmp_path / "absent.mp4", seconds=2, sound=None)
    assert not sounds_of(absent).any()
    assert survey.survey(absent).notes == ("no sound stream: every mask and every sentence is empty",)


def test_a_hole_in_the_sound_is_silence(tmp_path):
    path = tmp_path / "hole.mkv"
    with av.open(str(make_video(tmp_path / "a.mkv", seconds=3))) as source, av.open(str(path), "w") as target:
        copies = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            kind, time = packet.stream.type, packet.pts is not None and float(packet.pts * packet.time_base)
            if not packet.size or (kind == "audio" and 1.0 < time < 2.0):
                continue
            packet.stream = copies[packet.stream_index]
            target.mux(packet)
    sounds = sounds_of(path)
    assert level(sounds[1][2000:-2000]) < 1e-3
    assert level(sounds[2][1000:-1000]) == pytest.approx(0.25 / math.sqrt(2), rel=0.05)


def make_audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1, 16000)[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def refused(path):
    with pytest.raises(UserError) as caught:
        survey.survey(path)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert str(path) in message
    assert "\n" not in message
    assert ": " in message.split(str(path), 1)[1][2:], "no remedy"
    return message


def test_refusals(tmp_path):
    whole = make_video(tmp_path / "whole.mp4", seconds=3).read_bytes()
    texts = {
        "playlist.mp4": b"#EXTM3U\n#EXTINF:3,\nwhole.mp4\n#EXT-X-ENDLIST\n",
        "concat.mp4": b"ffconcat version 1.0\nfile whole.mp4\n",
        "noise.mp4": np.random.default_rng(0).bytes(5000),
        "empty.mp4": b"",
        "no_index.mp4": whole[: len(whole) // 2],
    }
    for name, content in texts.items():
        (tmp_path / name).write_bytes(content)
    make_audio_only(tmp_path / "audio.mp4")
    assert "no such file" in refused(tmp_path / "missing.mp4")
    assert "is a directory" in refused(tmp_path)
    assert "is text" in refused(tmp_path / "playlist.mp4")
    assert "is text" in refused(tmp_path / "concat.mp4")
    assert "not a video" in refused(tmp_path / "noise.mp4")
    assert "is empty" in refused(tmp_path / "empty.mp4")
    assert "truncated" in refused(tmp_path / "no_index.mp4")
    assert "holds no pictures" in refused(tmp_path / "audio.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv"])
def test_files_that_were_cut_are_refused(tmp_path, name):
    """With the index in front, as videos on the web have it, the cut shows only in what is missing."""
    options = {"movflags": "+faststart"} if name == "a.mp4" else None
    whole = make_video(tmp_path / name, seconds=6, size=(96, 128), options=options).read_bytes()
    survey.survey(tmp_path / name)
    for share in (0.3, 0.6) + ((0.99, 0.9999) if name == "a.mp4" else ()):
        (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
        assert "truncated" in refused(tmp_path / name)


def test_limits(tmp_path, monkeypatch):
    make_video(tmp_path / "a.mkv", layout="7.1", codecs=("libx264", "pcm_s16le"))
    monkeypatch.setattr(media, "MAX_CHANNELS", 6)
    assert "8 channels" in refused(tmp_path / "a.mkv")
    monkeypatch.setattr(media, "MAX_PIXELS", 48 * 64 - 1)
    assert "64 x 48 pixels" in refused(tmp_path / "a.mkv")
    monkeypatch.undo()
    monkeypatch.setattr(survey, "MAX_SECONDS", 1.0)
    assert "hours" in refused(tmp_path / "a.mkv")
    monkeypatch.setattr(media, "PACKET_SECONDS", 0.0)
    assert "to decode" in refused(tmp_path / "a.mkv")


def test_damage_inside_is_counted_and_too_much_of_it_refused(tmp_path):
    path = make_video(tmp_path / "a.mp4", seconds=4, fps=25, size=(96, 128), sound=None)
    whole = bytearray(path.read_bytes())
    start = whole.find(b"mdat") + 4
    length = int.from_bytes(whole[start - 8 : start - 4]) - 8
    broken = bytearray(whole)
    broken[start + length // 3 : start + length] = bytes(length - length // 3)
    path.write_bytes(broken)
    with pytest.raises(UserError, match="cannot be decoded"):
        pictures_of(path)


def test_pictures_after_a_jump_back_of_the_clock_are_counted(tmp_path):
    once = make_video(tmp_path / "once.ts", seconds=2, sound=None).read_bytes()
    (tmp_path / "twice.ts").write_bytes(once + once)
    tally = video.Tally()
    info = survey.survey(tmp_path / "twice.ts")
    times = [seconds for seconds, _ in video.pictures(info, tally)]
    assert times == sorted(set(times))
    assert len(times) == 20
    assert tally.late == 20


def test_a_title_in_another_encoding(tmp_path):
    path = make_video(tmp_path / "a.mkv", seconds=1, sound=None, title="XXXXXXXX")
    path.write_bytes(path.read_bytes().replace(b"XXXXXXXX", b"\xe9\xff\xfe\x80\x81\xe9\xe9\xe9"))
    assert survey.survey(path).num_seconds == 1


def test_two_streams_of_each_kind(tmp_path):
    first, second = make_video(tmp_path / "1.mkv", seconds=2), make_video(tmp_path / "2.mkv", seconds=5, size=(32, 32))
    with av.open(str(first)) as one, av.open(str(second)) as two, av.open(str(tmp_path / "both.mkv"), "w") as target:
        copies = [
            (source, {s.index: target.add_stream_from_template(s) for s in source.streams}) for source in (one, two)
        ]
        for source, streams in copies:
            for packet in source.demux():
                if packet.size:
                    packet.stream = streams[packet.stream_index]
                    target.mux(packet)
    info = survey.survey(tmp_path / "both.mkv")
    assert (info.width, info.num_seconds) == (64, 2)
    assert info.notes[:2] == ("2 video streams: the first is described", "2 sound streams: the first is used")


def test_real_clips(shared):
    """Every file of clips.csv: size, length as shown (one has an edit list), sound; all decode to the end."""
    with open(shared / "data" / "annotations" / "clips.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 33
    for row in rows:
        info = survey.survey(shared / "data" / row["file"])
        assert (info.width, info.height) == (int(row["width"]), int(row["height"])), row["file"]
        assert bool(info.sample_rate) == (row["audio"] != "none")
        if info.sample_rate:
            assert f"{info.sample_rate}Hz {info.channels}ch" in row["audio"]
        shown = {"EDGE: edit": 10.04}.get(row["note"][:10], int(row["frames"]) / float(row["fps"]))
        assert info.duration_seconds == pytest.approx(shown, abs=0.05), row["file"]
