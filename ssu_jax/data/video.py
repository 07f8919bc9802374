"""A video file -> one picture and one second of sound for every second, in constant memory.

The file is read as a stream: nothing is kept but the second at hand, so an hour costs no more memory than
ten seconds. Time 0 is the first picture that is shown; sound is laid on the same clock.
"""

import itertools
from collections.abc import Iterator

import av
import numpy as np
from jaxtyping import Int16, UInt8
from PIL import Image

from ssu_jax.data import media
from ssu_jax.data.media import Tally
from ssu_jax.data.survey import VideoInfo
from ssu_jax.types import UserError

# Time stamps are rounded to the container's clock; a picture this much late still counts as on time.
_CLOCK_SLACK_SECONDS = 1e-3
# Sound packets jitter; only a hole or a jump beyond this is mended.
_SOUND_SLACK_SECONDS = 0.1
# Of all packets; beyond it what is left would be described as if it were the video.
MAX_DAMAGED_SHARE = 0.1


def pictures(info: VideoInfo, tally: Tally | None = None) -> Iterator[tuple[float, av.VideoFrame]]:
    """(seconds, frame as coded) for every picture of the first video stream; times grow, the first is 0.

    A picture whose time has passed already is counted as late and left out (the clock of joined files jumps back).
    Raises UserError as `media.decode` does.
    """
    tally = Tally() if tally is None else tally
    with media.open_media(info.path) as container:
        stream = media.video_stream(container)
        before = -1.0
        for frame in media.decode(container, stream, tally):
            stamp = frame.pts if frame.pts is not None else frame.dts
            if stamp is None:
                continue
            seconds = max(0.0, float(stamp * stream.time_base - info.start))
            if seconds <= before:
                tally.late += 1
            elif seconds < info.duration_seconds + _CLOCK_SLACK_SECONDS:
                before = seconds
                yield seconds, frame


def upright(
    info: VideoInfo, frame: av.VideoFrame, height: int | None = None, width: int | None = None
) -> UInt8[np.ndarray, "y x 3"]:
    """RGB pixels of a frame as shown, at the given size (default: the video's)."""
    size = (info.height if height is None else height, info.width if width is None else width)
    coded_height, coded_width = size[::-1] if info.orientation.transposed else size
    turned = info.orientation.apply(frame.reformat(coded_width, coded_height, "rgb24").to_ndarray())
    return np.ascontiguousarray(turned)


def second_pictures(info: VideoInfo, size: int, tally: Tally | None = None) -> Iterator[UInt8[np.ndarray, "y x 3"]]:
    """For each second the picture shown at `info.time_of(second)`, the whole frame squeezed to size x size.

    Reduced with Pillow's bilinear filter, whose support grows with the reduction: no aliasing.
    Raises UserError if nothing, or too little, can be decoded.
    """
    tally = Tally() if tally is None else tally
    second, shown, small = 0, None, None
    for seconds, frame in pictures(info, tally):
        while shown is not None and second < info.num_seconds and seconds > info.time_of(second) + _CLOCK_SLACK_SECONDS:
            small = _squeeze(info, shown, size) if small is None else small
            yield small
            second += 1
        shown, small = frame, None
    if shown is None:
        raise UserError(f"{info.path}: none of its pictures can be decoded: get the file again, or convert it to H.264")
    if tally.damaged > MAX_DAMAGED_SHARE * tally.packets:
        raise UserError(
            f"{info.path}: damaged: {tally.damaged} of {tally.packets} packets of its pictures cannot be decoded: "
            "get the file again"
        )
    small = _squeeze(info, shown, size)
    for _ in range(second, info.num_seconds):
        yield small


def second_sounds(info: VideoInfo, rate: int, tally: Tally | None = None) -> Iterator[Int16[np.ndarray, "samples"]]:
    """For each second its sound, mono int16 at `rate` Hz, cut or padded with zeros to `info.num_seconds`.

    Several channels are mixed with ffmpeg's matrix for their layout, scaled so that no sum can clip.
    """
    buffer = np.zeros(0, np.int16)
    left = info.num_seconds
    for block in sound_blocks(info, rate, "mono", tally):
        buffer = np.concatenate([buffer, block[0]])
        while len(buffer) >= rate and left:
            yield buffer[:rate]
            buffer = buffer[rate:]
            left -= 1
    while left:
        yield np.pad(buffer, (0, rate - len(buffer)))
        buffer = buffer[:0]
        left -= 1


def sound_blocks(
    info: VideoInfo, rate: int, layout: str, tally: Tally | None = None
) -> Iterator[Int16[np.ndarray, "channels samples"]]:
    """The first sound stream as int16 [channels, samples] without a gap, from time 0 to the end of the pictures.

    Silence is put in where the sound starts late or has holes; nothing is padded at the end. Empty without sound.
    """
    end, position = round(info.duration_seconds * rate), 0
    with media.open_media(info.path) as container:
        stream = media.sound_stream(container)
        if stream is None:
            return
        for seconds, block in _resampled(media.decode(container, stream, tally), info, rate, layout):
            ahead = round(seconds * rate) - position if seconds is not None else 0
            if ahead < 0 and position == 0:  # before the first picture
                block = block[:, -ahead:]
            hole = ahead if ahead > (_SOUND_SLACK_SECONDS * rate if position else 0) else 0
            for part in itertools.chain(_silence(min(hole, end - position), len(block), rate), [block]):
                part = part[:, : end - position]
                position += part.shape[1]
                if part.size:
                    yield part
            if position >= end:
                return


def _silence(samples: int, channels: int, most: int) -> Iterator[np.ndarray]:
    """Zeros in parts of at most `most` samples: a hole may be hours long."""
    for start in range(0, samples, most):
        yield np.zeros((channels, min(most, samples - start)), np.int16)


def _resampled(frames: Iterator[av.AudioFrame], info: VideoInfo, rate: int, layout: str) -> Iterator[tuple]:
    """(start in seconds or None where it follows on, int16 [channels, samples]) of each frame of sound."""
    resampler, kind = None, None
    for frame in frames:
        here = (frame.format.name, frame.layout.name, frame.sample_rate)
        if here != kind:  # a stream may change its mind half way
            resampler, kind = av.AudioResampler(format="s16p", layout=layout, rate=rate), here
        seconds = float(frame.pts * frame.time_base - info.start) if frame.pts is not None else None
        for part in resampler.resample(frame):
            yield seconds, part.to_ndarray()
            seconds = None
    if resampler is not None:
        for part in resampler.resample(None):
            yield None, part.to_ndarray()


def _squeeze(info: VideoInfo, frame: av.VideoFrame, size: int) -> np.ndarray:
    whole = upright(info, frame)
    if whole.shape[:2] == (size, size):
        return whole
    return np.array(Image.fromarray(whole).resize((size, size), Image.Resampling.BILINEAR))
