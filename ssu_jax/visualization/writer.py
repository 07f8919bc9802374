"""Videos to look at and listen to: H.264 and AAC in an mp4, written under a temporary name and then renamed."""

import itertools
import pathlib
from collections.abc import Iterable
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

# A level meter that is read once a second is dull; 25 times a second is what a screen shows.
PREVIEW_FRAMES_PER_SECOND = 25


class VideoWriter:
    """Writes pictures at any times, and sound if `sample_rate` is given. A context manager.

    The file appears under its name only when the `with` block ends without an error.
    Raises UserError where the folder cannot be written or the disk is full.
    """

    def __init__(self, path, height: int, width: int, *, sample_rate: int = 0, channel_layout: str = "mono"):
        """height, width: even. sample_rate: Hz, one that AAC knows. channel_layout: ffmpeg's name, e.g. "stereo"."""
        self.path = pathlib.Path(path)
        self._size = (height, width)
        self._sound = (sample_rate, channel_layout)
        self._samples = 0
        self._last_tick = -1

    def __enter__(self) -> "VideoWriter":
        """Opens the temporary file and its streams."""
        self._name = files.atomic_path(self.path)
        temporary = self._name.__enter__()
        try:
            self._open(str(temporary))
        except BaseException as error:
            self._name.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _open(self, temporary: str) -> None:
        # faststart puts the index first, so that a browser plays the file while it loads.
        self._container = av.open(temporary, "w", format="mp4", options={"movflags": "+faststart"})
        height, width = self._size
        # The rate only sets the encoder's expectations; true times are those of write().
        self._video = self._container.add_stream("libx264", rate=30)
        self._video.height, self._video.width, self._video.pix_fmt = height, width, "yuv420p"
        self._video.time_base = self._video.codec_context.time_base = _PICTURE_CLOCK
        self._video.codec_context.flags |= Flags.frame_duration  # else the last picture lasts 1 / rate
        # Said in the file as well: players else guess the colours by the picture's size.
        self._video.codec_context.colorspace = Colorspace.ITU709
        self._video.codec_context.color_primaries = ColorPrimaries.BT709
        self._video.codec_context.color_trc = ColorTrc.BT709
        self._video.codec_context.color_range = ColorRange.MPEG
        self._video.options = {"preset": "veryfast", "crf": "20"}
        rate, layout = self._sound
        self._audio = self._container.add_stream("aac", rate=rate, layout=layout) if rate else None

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
        rate, layout = self._sound
        interleaved = np.ascontiguousarray(samples.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, self._samples, Fraction(1, rate)
        self._samples += samples.shape[1]
        self._container.mux(self._audio.encode(frame))

    def __exit__(self, kind, error, trace) -> bool | None:
        """Ends the streams and gives the file its name; after an error only the temporary file goes."""
        try:
            if kind is None:
                self._container.mux(self._video.encode(None))
                if self._audio:
                    self._container.mux(self._audio.encode(None))
            self._container.close()
        except BaseException as fault:
            self._name.__exit__(type(fault), fault, fault.__traceback__)
            raise
        return self._name.__exit__(kind, error, trace)


def write_preview(path, clips: Iterable[Clip]) -> None:
    """A few clips one after the other, with sound, masks and sentences. All have one size and one rate.

    path: an .mp4 name. Raises UserError as VideoWriter does, ValueError without a clip.
    """
    clips = iter(clips)
    first = next(clips, None)
    if first is None:
        raise ValueError("write_preview wants at least one clip, got none")
    annotator = Annotator(Layout.for_size(*first.frames.shape[1:3]))
    layout = annotator.layout
    with VideoWriter(path, layout.height, layout.width, sample_rate=first.sample_rate) as writer:
        start = 0.0
        for clip in itertools.chain([first], clips):
            _write_clip(writer, annotator, clip, start)
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
