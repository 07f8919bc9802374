"""What a video file holds, measured on all its packets: headers guess, round, and promise what was cut off."""

import dataclasses
import functools
import math
import os
import pathlib
from fractions import Fraction
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8

from ssu_jax.data import media
from ssu_jax.types import UserError

MAX_SECONDS = 24 * 3600.0

# These have no header that knows the length: what is there is all there is.
_WITHOUT_LENGTH = ("mpegts", "mpeg")
# Headers round, and count a stream's delay; what is missing beyond this was cut off.
_MISSING_SECONDS = 0.5
# A shift of sound or pictures that a person would notice and wants to be told of.
_NOTED_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class Orientation:
    """How a coded picture is turned upright: transposed first, then mirrored."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, picture: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        """A view of [y, x, ...] that stands upright."""
        picture = picture.swapaxes(0, 1) if self.transposed else picture
        return picture[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a file holds. Times in seconds from the first picture that is shown.

    height, width:         pixels of a picture as shown, upright.
    pixel_aspect:          width of such a pixel over its height.
    start:                 the first picture on the container's own clock.
    duration_seconds:      length of the first video stream as shown; edit lists are respected.
    last_picture_seconds:  when the last picture appears.
    sample_rate, channels: of the first sound stream, 0 without one; it spans `sound_seconds`, which may begin below 0.
    notes:                 sentences for the user about what was chosen, cut or missing.
    """

    path: pathlib.Path
    height: int
    width: int
    pixel_aspect: Fraction
    orientation: Orientation
    start: Fraction
    duration_seconds: float
    last_picture_seconds: float
    sample_rate: int
    channels: int
    sound_seconds: tuple[float, float]
    notes: tuple[str, ...]

    @property
    def num_seconds(self) -> int:
        """How many seconds are described: the duration rounded, at least one."""
        return max(1, math.floor(self.duration_seconds + 0.5))

    def time_of(self, second: int) -> float:
        """When the picture of a second is taken: in its middle, or with the last picture if that comes before."""
        return min(second + 0.5, self.last_picture_seconds)

    def end_of(self, second: int) -> float:
        """Until when a second's mask and sentence are shown; the last one stands until the video ends."""
        last = second + 1 == self.num_seconds
        return self.duration_seconds if last else float(second + 1)


def survey(path: str | os.PathLike) -> VideoInfo:
    """Decodes the first picture, reads every packet, and says what there is.

    Raises UserError for what `media.open_media` and `media.video_stream` refuse, for a file cut short, and for
    one that is too long.
    """
    path = pathlib.Path(path)
    picture = _first_picture(path)
    spans = _Spans(path)
    duration = float(spans.video.end - picture.start)
    last = float(spans.video.last - picture.start)
    if last < spans.declared < duration:
        duration = spans.declared  # the edit list ends within the last picture
    _check_length(path, duration)
    heard = (0.0, 0.0)
    if spans.sound.count:
        known = spans.sound.end > spans.sound.last  # else its last packet carries no length
        heard = (
            float(spans.sound.start - picture.start),
            float(spans.sound.end - picture.start) if known else duration,
        )
    return VideoInfo(
        path=path,
        height=picture.height,
        width=picture.width,
        pixel_aspect=picture.pixel_aspect,
        orientation=picture.orientation,
        start=picture.start,
        duration_seconds=duration,
        last_picture_seconds=max(0.0, last),
        sample_rate=spans.sample_rate if spans.sound.count else 0,
        channels=spans.channels if spans.sound.count else 0,
        sound_seconds=heard,
        notes=tuple(spans.notes + _notes_on_sound(heard, duration) if spans.sound.count else spans.notes),
    )


def glance(path: str | os.PathLike) -> VideoInfo:
    """What the header and the first picture say, without reading on: to take seconds out of a long video.

    The length is the header's word, and nothing is noted; where a header has none to be trusted, all is read once
    as by `survey`. Raises UserError as `survey`, for a file cut short only where the boxes of an mp4 tell.
    """
    path = pathlib.Path(path)
    picture = _first_picture(path)
    if not picture.declared:
        return _surveyed(path)
    if picture.is_mp4 and media.mp4_is_cut(path):
        raise UserError(f"{path}: truncated: it announces {picture.declared:.1f} s: get the whole file")
    _check_length(path, picture.declared)
    return VideoInfo(
        path=path,
        height=picture.height,
        width=picture.width,
        pixel_aspect=picture.pixel_aspect,
        orientation=picture.orientation,
        start=picture.start,
        duration_seconds=picture.declared,
        last_picture_seconds=picture.declared,
        sample_rate=picture.sample_rate,
        channels=picture.channels,
        sound_seconds=(0.0, picture.declared if picture.sample_rate else 0.0),
        notes=(),
    )


def declared_seconds(path: str | os.PathLike) -> float:
    """The length that `glance` gives, of the header alone. Raises UserError as `media.open_media`."""
    with media.open_media(path) as container:
        declared = _declared(container, media.video_stream(container))
    return declared or _surveyed(pathlib.Path(path)).duration_seconds


def _declared(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    return 0.0 if container.format.name in _WITHOUT_LENGTH else media.declared_seconds(container, stream)


def _surveyed(path: pathlib.Path) -> VideoInfo:
    status = path.stat()
    return _survey_of(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _survey_of(path: pathlib.Path, size: int, changed: int) -> VideoInfo:
    return survey(path)


@dataclasses.dataclass(frozen=True)
class _Picture:
    """Of the first picture and the header; declared: seconds of pictures, 0 where the header is silent."""

    height: int
    width: int
    pixel_aspect: Fraction
    orientation: Orientation
    start: Fraction
    declared: float
    is_mp4: bool
    sample_rate: int
    channels: int


def _first_picture(path: pathlib.Path) -> _Picture:
    with media.open_media(path) as container:
        stream = media.video_stream(container)
        frame = next(media.decode(container, stream), None)
        if frame is None:
            raise UserError(f"{path}: none of its pictures can be decoded: get the file again, or convert it to H.264")
        aspect = _fraction(stream.sample_aspect_ratio)
        orientation = _orientation(frame)
        height, width = frame.height, frame.width
        if orientation.transposed:
            height, width, aspect = width, height, 1 / aspect
        time = frame.pts if frame.pts is not None else frame.dts or 0
        sound = media.sound_stream(container)
        return _Picture(
            height=height,
            width=width,
            pixel_aspect=aspect,
            orientation=orientation,
            start=time * stream.time_base,
            declared=_declared(container, stream),
            is_mp4="mp4" in container.format.name,
            sample_rate=sound.codec_context.sample_rate if sound else 0,
            channels=sound.codec_context.channels if sound else 0,
        )


def _check_length(path: pathlib.Path, seconds: float) -> None:
    if not 0 < seconds <= MAX_SECONDS:
        raise UserError(
            f"{path}: lasts {seconds / 3600:.1f} hours, at most {MAX_SECONDS / 3600:.0f} are read: cut it in parts"
        )


def _fraction(aspect: Any) -> Fraction:
    """PyAV's rational number; 1 for none and for nonsense in the header."""
    if not aspect or not aspect.denominator:
        return Fraction(1)
    aspect = Fraction(aspect.numerator, aspect.denominator)
    return aspect if Fraction(1, 8) <= aspect <= 8 else Fraction(1)


def _orientation(frame: av.VideoFrame) -> Orientation:
    """From the display matrix [[a, b, u], [c, d, v], [x, y, w]]: x' = a x + c y, y' = b x + d y."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d, *_ = (int(value) for value in np.frombuffer(bytes(data), "<i4"))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


class _Span:
    """Start, end and last beginning of a stream's shown packets, in seconds on the container's clock."""

    def __init__(self):
        self.count, self.start, self.end, self.last = 0, Fraction(0), Fraction(0), Fraction(0)

    def add(self, packet: av.Packet) -> None:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or packet.is_discard:  # outside the edit list
            return
        time = stamp * packet.time_base
        self.start = min(self.start, time) if self.count else time
        if not self.count or time >= self.last:
            # Only the length of the last packet counts: in the order of coding the others' say little.
            self.last, self.end = time, time + (packet.duration or 0) * packet.time_base
        self.count += 1


class _Spans:
    """The spans of the first pictures and the first sound, and what the header says of them."""

    def __init__(self, path: pathlib.Path):
        self.video, self.sound, reached = _Span(), _Span(), _Span()
        with media.open_media(path) as container:
            video, sound = media.video_stream(container), media.sound_stream(container)
            named = container.format.name
            self.notes = _notes_on_streams(container, sound)
            self.declared = float(video.duration * video.time_base) if video.duration and "mp4" in named else 0.0
            self.sample_rate = sound.codec_context.sample_rate if sound else 0
            self.channels = sound.codec_context.channels if sound else 0
            damaged = False
            for packet in media.packets(container):
                reached.add(packet)
                damaged |= packet.is_corrupt
                for stream, span in ((video, self.video), (sound, self.sound)):
                    if stream is not None and packet.stream_index == stream.index:
                        span.add(packet)
            length = container.duration / av.time_base if container.duration else 0.0
        if self.video.end <= self.video.last:  # the last packet carries no length: it lasts as the others did
            shown = self.video.last - self.video.start
            self.video.end = self.video.last + (shown / (self.video.count - 1) if shown else Fraction(1, 25))
        missing = length - float(reached.end - reached.start) > _MISSING_SECONDS
        cut = media.mp4_is_cut(path) if "mp4" in named else False
        if cut or (named not in _WITHOUT_LENGTH and (missing or damaged)):
            shown = float(self.video.end - self.video.start)
            raise UserError(
                f"{path}: truncated: it announces {length:.1f} s and holds {shown:.1f} s of pictures: "
                "get the whole file, or keep what is there (ffmpeg -i IN -c copy OUT.mkv)"
            )


def _notes_on_streams(container: av.container.InputContainer, sound: av.AudioStream | None) -> list[str]:
    notes = []
    pictures = len([one for one in container.streams.video if not media.is_cover(one)])
    if pictures > 1:
        notes.append(f"{pictures} video streams: the first is described")
    if len(container.streams.audio) > 1:
        notes.append(f"{len(container.streams.audio)} sound streams: the first is used")
    if not container.streams.audio:
        notes.append("no sound stream: every mask and every sentence is empty")
    elif sound is None:
        notes.append("the sound is in a code that cannot be read here: treated as silence")
    return notes


def _notes_on_sound(heard: tuple[float, float], duration: float) -> list[str]:
    start, end = heard
    notes = []
    if start > _NOTED_SECONDS:
        notes.append(f"the sound starts {start:.2f} s after the pictures: silence until then")
    if end > duration + _NOTED_SECONDS:
        notes.append(f"the sound is {end - duration:.2f} s longer than the pictures: cut")
    if end < duration - _NOTED_SECONDS:
        notes.append(f"the sound ends {duration - end:.2f} s before the pictures: silence from then on")
    return notes
