"""A video file -> one picture and one second of sound for every second, in constant memory.

The file is read as a stream: nothing is kept but the second at hand, so an hour costs no more memory than
ten seconds. Time 0 is the first picture that is shown; sound is laid on the same clock.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from jaxtyping import Int16, UInt8
from PIL import Image

from ssu_jax.data import media
from ssu_jax.data.media import Tally
from ssu_jax.data.survey import VideoInfo, survey
from ssu_jax.types import UserError

# Time stamps are rounded to the container's clock; a picture this much late still counts as on time.
_CLOCK_SLACK_SECONDS = 1e-3
# Sound packets jitter; only a hole or a jump beyond this is mended.
_SOUND_SLACK_SECONDS = 0.1
_SOUND_LEAD_SECONDS = 1.0
_MISSING_SECONDS = 0.5
# Sound often outlasts the pictures by some tenths; by more, the rest of the pictures was lost.
_LOST_SECONDS = 2.0
# Of all packets; beyond it what is left would be described as if it were the video.
MAX_DAMAGED_SHARE = 0.1


def pictures(info: VideoInfo, tally: Tally | None = None, begin: float = 0.0) -> Iterator[tuple[float, av.VideoFrame]]:
    """(seconds, frame as coded) for every picture of the first video stream; times grow, the first is 0.

    With `begin`, from a picture at or before it: the nearest that can be decoded without the earlier ones.
    A picture whose time has passed already is counted as late and left out (the clock of joined files jumps back).
    Raises UserError as `media.decode` does.
    """
    tally = Tally() if tally is None else tally
    before = -1.0
    for stamp, frame in _frames(info, media.video_stream, tally, begin):
        seconds = None if stamp is None else max(0.0, stamp)
        if seconds is None:
            continue
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
            small = _resize(info, shown, size, size) if small is None else small
            yield small
            second += 1
        shown, small = frame, None
    _check_damage(info, tally, shown is not None)
    small = _resize(info, shown, size, size)
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
    info: VideoInfo, rate: int, layout: str, tally: Tally | None = None, span: tuple[float, float] = (0.0, math.inf)
) -> Iterator[Int16[np.ndarray, "channels samples"]]:
    """The first sound stream as int16 [channels, samples] without a gap, from time 0 to the end of the pictures.

    Silence is put in where the sound starts late or has holes; nothing is padded at the end. Empty without sound.
    With `span`, the seconds from its first to its second number alone.
    """
    first, last = span
    # The resampler's filter, and the decoder, need some sound before that which is wanted.
    frames = _frames(info, media.sound_stream, tally, max(0.0, first - _SOUND_LEAD_SECONDS))
    yield from _laid(frames, rate, layout, round(first * rate), round(min(info.duration_seconds, last) * rate))


def file_sound(path: str | os.PathLike, rate: int, seconds: float) -> Int16[np.ndarray, "samples"]:
    """The first seconds of a sound file, mono; shorter where the file is, zeros before a sound that starts late.

    Raises UserError for a file that is none, is cut short or damaged, or holds NaN or infinity.
    """
    tally = Tally()
    with media.open_sound(path) as (container, stream):
        blocks = list(_laid(_stamped(container, stream, tally, Fraction(0)), rate, "mono", 0, round(seconds * rate)))
    if not blocks or tally.damaged > MAX_DAMAGED_SHARE * tally.packets:
        raise UserError(
            f"{path}: damaged: {tally.damaged} of {tally.packets} packets of its sound cannot be decoded: "
            "get the file again"
        )
    return np.concatenate(blocks, axis=1)[0]


def excerpt(
    info: VideoInfo, begin: float, seconds: int, size: int, rate: int, moments: Sequence[float] | None = None
) -> tuple[UInt8[np.ndarray, "t y x 3"], Int16[np.ndarray, "samples"]]:
    """The picture shown in the middle of each second from `begin` on, and their sound, mono.

    info:    of `survey`, or of `glance` for a long file: nothing far before `begin` is decoded.
    seconds: how many at most; fewer where the video ends (its last second counts from half a second on).
    size:    pixels of the shorter side at most; the pictures are reduced, never enlarged, to square pixels.
    moments: when in each second the picture is taken, instead of 0.5.
    Raises UserError as `media.decode`, if nothing or too little can be decoded, and if the file is cut short.
    """
    if begin < 0:
        raise UserError(f"{info.path}: a clip cannot begin at {begin:g} s")
    moments = [0.5] * seconds if moments is None else moments
    rows, columns = shown_size(info, size)
    wanted = [begin + second + moment for second, moment in enumerate(moments)]
    for start in (begin, 0.0) if begin > 0 else (0.0,):
        tally = Tally()
        taken, shown, end = _shown_at(pictures(info, tally, start), wanted)
        if shown is not None and not _is_damaged(tally):
            break  # else some decoders cannot begin in the middle: once more from the front
    _check_damage(info, tally, shown is not None)
    frames = [_resize(info, frame, rows, columns) for frame in taken]
    if len(frames) < seconds:
        if end < min(begin + seconds, info.duration_seconds) - _MISSING_SECONDS:
            whole = survey(info.path)  # says whether it was cut off
            if whole.duration_seconds < info.duration_seconds - _LOST_SECONDS:
                raise UserError(
                    f"{info.path}: announces {info.duration_seconds:.1f} s, its pictures end at "
                    f"{whole.duration_seconds:.1f} s: get the file again, or cut its sound there"
                )
            info = whole
        end = min(max(end, info.duration_seconds), begin + seconds)
        count = math.floor(end - begin + 0.5)
        if count < 1 and (begin > 0 or end <= 0):
            raise UserError(f"{info.path}: its pictures end at {end:.2f} s, a clip from {begin:g} s on has none")
        last = None if shown is None else _resize(info, shown, rows, columns)
        frames += [last] * (max(count, 1) - len(frames))
    samples = len(frames) * rate
    blocks = list(sound_blocks(info, rate, "mono", span=(begin, begin + len(frames))))
    sound = np.concatenate([np.zeros(0, np.int16), *(block[0] for block in blocks)])[:samples]
    return np.stack(frames), np.pad(sound, (0, samples - len(sound)))


def _shown_at(
    frames: Iterator[tuple[float, av.VideoFrame]], wanted: Sequence[float]
) -> tuple[list[av.VideoFrame], av.VideoFrame | None, float]:
    """(the frame shown at each time as far as the video goes, the last one read, its end in seconds)."""
    taken, shown, end = [], None, 0.0
    for at, frame in frames:
        while shown is not None and len(taken) < len(wanted) and at > wanted[len(taken)] + _CLOCK_SLACK_SECONDS:
            taken.append(shown)
        if len(taken) == len(wanted):
            break
        shown, end = frame, at + float((frame.duration or 0) * frame.time_base)
    return taken, shown, end


def shown_size(info: VideoInfo, size: int) -> tuple[int, int]:
    """Rows and columns in square pixels when the shorter side has at most `size` pixels."""
    height, width = info.height, float(info.width * info.pixel_aspect)
    share = min(1.0, size / min(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def _frames(info: VideoInfo, choose: Callable, tally: Tally | None, begin: float) -> Iterator[tuple]:
    """(seconds or None, frame) of the stream that `choose` finds, from `begin` or shortly before it."""
    for start in (begin, 0.0) if begin > 0 else (0.0,):
        with media.open_media(info.path) as container:
            stream = choose(container)
            if stream is None:
                return
            if start:  # by the pictures: Matroska has no index of the sound
                media.seek(container, media.video_stream(container), info.start + Fraction(start))
            frames = _stamped(container, stream, tally, info.start)
            first = next(frames, None)
            if start and (first is None or first[0] is None or first[0] > begin):
                continue  # came out too late, or nowhere
            if first is not None:
                yield first
                yield from frames
            return


def _stamped(container, stream, tally: Tally | None, origin: Fraction) -> Iterator[tuple]:
    """(seconds from `origin` or None, frame) for every frame. Raises UserError for NaN or infinity in raw sound."""
    raw = stream.codec_context.name.startswith("pcm_f")
    for frame in media.decode(container, stream, tally):
        stamp = frame.pts if frame.pts is not None else frame.dts
        seconds = None if stamp is None else float(stamp * stream.time_base - origin)
        if raw and not np.isfinite(frame.to_ndarray()).all():
            raise UserError(
                f"{container.name.removeprefix('file:')}: its sound holds NaN or infinity at {seconds or 0:.2f} s: "
                "export it again"
            )
        yield seconds, frame


def _laid(frames: Iterator[tuple], rate: int, layout: str, first: int, end: int) -> Iterator[np.ndarray]:
    """Frames with their seconds -> int16 blocks without a gap from sample `first` to sample `end`."""
    position, place, slack = first, None, _SOUND_SLACK_SECONDS * rate
    for seconds, block in _resampled(frames, rate, layout):
        # A block is that much behind its frame that the resampler holds back: only the first one's time is exact.
        exact = None if seconds is None else round(seconds * rate)
        if place is None or (exact is not None and abs(exact - place) > slack):
            place = exact or 0
        ahead = place - position
        place += block.shape[1]
        if ahead < 0 and position == first:  # before what is wanted
            block = block[:, -ahead:]
        hole = ahead if ahead > (slack if position > first else 0) else 0
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


def _resampled(frames: Iterator[tuple], rate: int, layout: str) -> Iterator[tuple]:
    """(start in seconds or None where it follows on, int16 [channels, samples]) of each frame of sound."""
    resampler, kind = None, None
    for seconds, frame in frames:
        here = (frame.format.name, frame.layout.name, frame.sample_rate)
        if here != kind:  # a stream may change its mind half way
            resampler, kind = av.AudioResampler(format="s16p", layout=layout, rate=rate), here
        for part in resampler.resample(frame):
            yield seconds, part.to_ndarray()
            seconds = None
    if resampler is not None:
        for part in resampler.resample(None):
            yield None, part.to_ndarray()


def _is_damaged(tally: Tally) -> bool:
    return tally.damaged > MAX_DAMAGED_SHARE * tally.packets


def _check_damage(info: VideoInfo, tally: Tally, any_shown: bool) -> None:
    if not any_shown:
        raise UserError(f"{info.path}: none of its pictures can be decoded: get the file again, or convert it to H.264")
    if _is_damaged(tally):
        raise UserError(
            f"{info.path}: damaged: {tally.damaged} of {tally.packets} packets of its pictures cannot be decoded: "
            "get the file again"
        )


def _resize(info: VideoInfo, frame: av.VideoFrame, rows: int, columns: int) -> np.ndarray:
    whole = upright(info, frame)
    if whole.shape[:2] == (rows, columns):
        return whole
    return np.array(Image.fromarray(whole).resize((columns, rows), Image.Resampling.BILINEAR))
