"""Small videos of known content, made with PyAV for the tests.

A picture at time s is red, green and blue in its first three quarters (top left, top right, bottom left); the
fourth is a grey of brightness `grey_at(s)`, which tells the tenth of a second. The sound is a sine.
"""

from fractions import Fraction

import av
import numpy as np

CLOCK = Fraction(1, 90_000)


def grey_at(seconds):
    return int(16 + 2 * np.floor(seconds * 10 + 1e-6) % 220)


def picture(seconds, height=48, width=64):
    image = np.full((height, width, 3), grey_at(seconds), np.uint8)
    image[: height // 2, : width // 2] = (230, 20, 20)
    image[: height // 2, width // 2 :] = (20, 230, 20)
    image[height // 2 :, : width // 2] = (20, 20, 230)
    return image


def tone(seconds, rate=48000, hertz=440, amplitude=0.25):
    return (32767 * amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


def make_video(
    path,
    times=None,
    *,
    seconds=2.0,
    fps=10,
    size=(48, 64),
    sound="default",
    layout="mono",
    rate=48000,
    sound_start=0.0,
    rotation=0,
    codecs=("libx264", "aac"),
    pix_fmt="yuv420p",
    options=None,
    drawn=picture,
    aspect=None,
    title="",
):
    """times: when each picture appears (default: `fps` a second for `seconds`). sound: int16 [samples] that all
    channels carry, None for no stream, default a tone as long as the pictures. rotation: counter-clockwise.
    """
    times = [i / fps for i in range(round(seconds * fps))] if times is None else times
    sound = tone(seconds, rate) if isinstance(sound, str) else sound
    with av.open(str(path), "w", options=options or {}) as container:
        container.metadata.update({"title": title} if title else {})
        exact = codecs[0] == "libx264"
        video = container.add_stream(codecs[0], rate=Fraction(fps).limit_denominator(100) if exact else round(fps))
        video.height, video.width, video.pix_fmt = size[0], size[1], pix_fmt
        if exact:
            video.time_base = video.codec_context.time_base = CLOCK
            video.options = {"crf": "10", "preset": "ultrafast", "threads": "1"}
        if aspect:
            video.codec_context.sample_aspect_ratio = aspect
        if rotation:
            video.set_display_rotation(rotation)
        audio = container.add_stream(codecs[1], rate=rate, layout=layout) if sound is not None else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(drawn(time, *size), format="rgb24").reformat(format=pix_fmt)
            clock = CLOCK if exact else 1 / Fraction(round(fps))
            frame.pts = round(time / clock) if exact else number
            frame.time_base = clock
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio:
            _write_sound(container, audio, sound, layout, rate, sound_start)
    return path


def _write_sound(container, stream, sound, layout, rate, start):
    channels = av.AudioLayout(layout).nb_channels
    block = 1024
    for first in range(0, len(sound), block):
        part = np.repeat(sound[first : first + block, None], channels, axis=1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="s16", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = first + round(start * rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
