"""Videos to look at and listen to: H.264 and AAC in an mp4, written under a temporary name and then renamed."""

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from jaxtyping import Int16, UInt8

from ssu_jax import files
from ssu_jax.types import Clip
from ssu_jax.visualization import pictures
from ssu_jax.visualization.overlay import Annotator, Layout

# Fine enough for every frame rate in use; 90 kHz is MPEG's own clock.
_PICTURE_CLOCK = Fraction(1, 90_000)

# Sample rates, Hz, that AAC has a number for.
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)

# A level meter that is read once a second is dull; 25 times a second is what a screen shows.
PREVIEW_FRAMES_PER_SECOND = 25


@contextlib.contextmanager
def open_video(
    path: str | os.PathLike, height: int, width: int, *, sample_rate: int = 0, channel_layout: str = "mono"
) -> Iterator["VideoWriter"]:
    """A writer; the file appears under its name only when the `with` block ends without an error.

    height, width: even. sample_rate: Hz, one of AAC_RATES, 0 for no sound. channel_layout: ffmpeg's name of it.
    Raises UserError where the folder cannot be written or the disk is full.
    """
    with files.atomic_path(path) as temporary:
        # faststart puts the index first, so that a browser plays the file while it loads.
        container = av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"})
        try:
            writer = VideoWriter(container, height, width, sample_rate, channel_layout)
            yield writer
            writer.flush()
            container.close()
        except BaseException:
            with contextlib.suppress(av.FFmpegError):
                container.close()
            raise


class VideoWriter:
    """Writes pictures at any times, and sound beside them. Made by `open_video`."""

    def __init__(
        self, container: av.container.OutputContainer, height: int, width: int, sample_rate: int, channel_layout: str
    ):
        self._container = container
        self._channel_layout = channel_layout
        self._samples = 0
        self._last_tick = -1
        # The rate only sets the encoder's expectations; true times are those of write().
        self._video = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "20"})
        self._video.height, self._video.width, self._video.pix_fmt = height, width, "yuv420p"
        codec = self._video.codec_context
        self._video.time_base = codec.time_base = _PICTURE_CLOCK
        codec.flags |= Flags.frame_duration  # else the last picture lasts 1 / rate
        # Said in the file as well: players else guess the colours by the picture's size.
        codec.colorspace, codec.color_primaries = Colorspace.ITU709, ColorPrimaries.BT709
        codec.color_trc, codec.color_range = ColorTrc.BT709, ColorRange.MPEG
        self._audio = container.add_stream("aac", rate=sample_rate, layout=channel_layout) if sample_rate else None

    def write(self, picture: UInt8[np.ndarray, "y x 3"], seconds: float, duration_seconds: float) -> None:
        """Shows the RGB picture from `seconds` on. Times must grow; the last duration is that of the video's end."""
        tick = max(round(seconds / _PICTURE_CLOCK), self._last_tick + 1)
        self._last_tick = tick
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = tick, _PICTURE_CLOCK
        frame.duration = max(1, round(duration_seconds / _PICTURE_CLOCK))
        self._container.mux(self._video.encode(frame))

    def write_sound(self, samples: Int16[np.ndarray, "channels samples"]) -> None:
        """Appends int16 sound, [channels, samples], at the writer's rate and layout."""
        interleaved = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="s16", layout=self._channel_layout)
        frame.sample_rate, frame.time_base = self._audio.rate, Fraction(1, self._audio.rate)
        frame.pts = self._samples
        self._samples += samples.shape[1]
        self._container.mux(self._audio.encode(frame))

    def flush(self) -> None:
        """Writes what the encoders still hold."""
        for stream in filter(None, (self._video, self._audio)):
            self._container.mux(stream.encode(None))


def write_preview(path, clips: Iterable[Clip]) -> None:
    """A few clips one after the other, with sound, masks and sentences. All have one size and one rate.

    path: an .mp4 name. Raises UserError as open_video does, ValueError without a clip.
    """
    clips = iter(clips)
    first = next(clips, None)
    if first is None:
        raise ValueError("write_preview wants at least one clip, got none")
    annotator = Annotator(Layout.for_size(*first.frames.shape[1:3]))
    layout = annotator.layout
    with open_video(path, layout.height, layout.width, sample_rate=first.sample_rate) as writer:
        start = 0.0
        for clip in itertools.chain([first], clips):
            _write_clip(writer, annotator, clip, start)
            start += len(clip.frames)


def write_plain(path, clips: Iterable[Clip]) -> None:
    """The clips as a camera would have taken them, nothing drawn in: a picture a second, and their sound.

    Frame t of a clip is shown through second t. path, errors: as `write_preview`.
    """
    clips = iter(clips)
    first = next(clips, None)
    if first is None:
        raise ValueError("write_plain wants at least one clip, got none")
    with open_video(path, *first.frames.shape[1:3], sample_rate=first.sample_rate) as writer:
        start = 0.0
        for clip in itertools.chain([first], clips):
            for second, frame in enumerate(clip.frames):
                writer.write(frame, start + second, 1.0)
            writer.write_sound(clip.sound[None])
            start += len(clip.frames)


def _write_clip(writer: VideoWriter, annotator: Annotator, clip: Clip, start: float) -> None:
    """Each frame stands still for its second; only the meter moves."""
    layout, rate = annotator.layout, clip.sample_rate
    sound = np.zeros(len(clip.frames) * rate, np.int16)
    sound[: len(clip.sound)] = clip.sound[: len(sound)]
    masks = clip.sounding_masks
    step = rate // PREVIEW_FRAMES_PER_SECOND
    for second, frame in enumerate(clip.frames):
        annotator.begin_second(masks[second], clip.captions[second])
        frame = pictures.resize(frame, layout.picture_height, layout.picture_width)
        heard = sound[second * rate : (second + 1) * rate]
        for tick in range(PREVIEW_FRAMES_PER_SECOND):
            level_db = pictures.level_of(heard[tick * step : (tick + 1) * step])
            seconds = start + second + tick / PREVIEW_FRAMES_PER_SECOND
            writer.write(annotator.draw(frame, level_db), seconds, 1 / PREVIEW_FRAMES_PER_SECOND)
        writer.write_sound(heard[None])
