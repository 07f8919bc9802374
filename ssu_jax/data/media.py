"""A media file from anyone: opened with limits, refused with a reason, decoded packet by packet.

Only the containers below are opened, and only as one local file: left to itself ffmpeg follows a playlist
named .mp4 to other files and hosts. Sizes are compared with the limits before memory is taken. A decoder
that lingers is stopped between two packets; one that never comes back from a packet is not.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import re
import stat
import time
from collections.abc import Iterator
from fractions import Fraction

import av
from av.stream import Discard, Disposition

from ssu_jax.types import UserError

CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif"
CONTAINERS_TEXT = "mp4, mov, mkv, webm, avi, ts, mpg, flv, ogv, wmv or gif"
SOUND_CONTAINERS = "wav,w64,aiff,flac,mp3,ogg,mov"  # where a data set comes with sound files of their own
MAX_PIXELS = 2 * 4096 * 4096
MAX_CHANNELS = 8
OPEN_SECONDS = 60.0  # wall clock, until the header is read
PACKET_SECONDS = 60.0  # wall clock, to read or to decode one packet

# Titles in another encoding are no fault of the pictures. From 19 on PyAV takes them as they come.
_LENIENT = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
# Frame threads hold a picture each: more than this costs memory on many cores and gains nothing.
_DECODER_THREADS = 4
_WAV_SLACK_BYTES = 256  # writers do not agree on what counts


@dataclasses.dataclass
class Tally:
    """What a decoder met: packets in all, those that gave an error or a damaged picture, and pictures out of time."""

    packets: int = 0
    damaged: int = 0
    late: int = 0


def open_media(path: str | os.PathLike, containers: str = CONTAINERS) -> av.container.InputContainer:
    """Opens a media file for reading. Raises UserError: missing, no file, empty, a playlist, unreadable, cut."""
    path = pathlib.Path(path)
    _check_file(path)
    options = {"format_whitelist": containers, "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
    limits = (OPEN_SECONDS, PACKET_SECONDS)
    try:
        return av.open(f"file:{path}", options=options, timeout=limits, **_LENIENT)
    except PermissionError as error:
        raise UserError(f"{path}: no permission to read it: change its permissions (chmod +r)") from error
    except av.FFmpegError as error:
        raise UserError(_why_unreadable(path, containers)) from error


@contextlib.contextmanager
def open_sound(path: str | os.PathLike) -> Iterator[tuple[av.container.InputContainer, av.AudioStream]]:
    """A file of SOUND_CONTAINERS and its sound. Raises UserError as `open_media`, without sound, and for a cut WAV."""
    with open_media(path, SOUND_CONTAINERS) as container:
        stream = sound_stream(container)
        if stream is None:
            raise UserError(f"{path}: holds no sound that can be read: get the file again")
        if wav_is_cut(path):
            raise UserError(f"{path}: truncated, it announces more than it holds: get the whole file again")
        yield container, stream


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first stream of pictures that is no cover art, within the limits, set up to decode.

    Raises UserError if there is none, if this build lacks its decoder, or if its pictures are too large.
    """
    path = container.name.removeprefix("file:")
    streams = [one for one in container.streams.video if not is_cover(one)]
    if not streams:
        raise UserError(f"{path}: holds no pictures (audio only?): give a video")
    stream = streams[0]
    codec = stream.codec_context
    if codec is None:
        raise UserError(f"{path}: its pictures are in a code that cannot be read here: convert it to H.264")
    if codec.width * codec.height > MAX_PIXELS:
        raise UserError(
            f"{path}: its pictures have {codec.width} x {codec.height} pixels, at most {MAX_PIXELS} in all are read: "
            "scale it down (ffmpeg -i IN -vf scale=1920:-2 OUT.mp4)"
        )
    codec.options = {"max_pixels": str(MAX_PIXELS)}  # a stream may grow behind its header's back
    codec.thread_type, codec.thread_count = "AUTO", min(_DECODER_THREADS, os.cpu_count() or 1)
    return stream


def is_cover(stream: av.VideoStream) -> bool:
    """Whether the stream is one still picture: cover art or a thumbnail."""
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.still_image))


def sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The first stream of sound, or None without one that can be decoded. Raises UserError for too many channels."""
    stream = next((one for one in container.streams.audio if one.codec_context is not None), None)
    if stream is not None and stream.codec_context.channels > MAX_CHANNELS:
        raise UserError(
            f"{container.name.removeprefix('file:')}: its sound has {stream.codec_context.channels} channels, "
            f"at most {MAX_CHANNELS} are read: mix it down (ffmpeg -i IN -c:v copy -ac 2 OUT.mp4)"
        )
    return stream


def decode(
    container: av.container.InputContainer, stream: av.stream.Stream, tally: Tally | None = None
) -> Iterator[av.frame.Frame]:
    """Every frame of one stream, in the order of showing. Damaged packets are counted and passed over.

    Raises UserError when a packet takes longer than the limit.
    """
    tally = Tally() if tally is None else tally
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    for packet in packets(container, stream):
        tally.packets += 1
        start = time.monotonic()
        try:
            frames = packet.decode()
        except EOFError:
            return
        except av.FFmpegError:
            tally.damaged += 1
            continue
        if time.monotonic() - start > PACKET_SECONDS:
            raise UserError(
                f"{container.name.removeprefix('file:')}: one packet took more than {PACKET_SECONDS:.0f} s to decode: "
                "convert it (ffmpeg -i IN OUT.mp4)"
            )
        for frame in frames:
            tally.damaged += bool(frame.is_corrupt)
            yield frame


def seek(container: av.container.InputContainer, stream: av.stream.Stream, seconds: Fraction) -> None:
    """Goes to the last place at or before `seconds` (the container's clock) where decoding can begin.

    Containers without an index may come out elsewhere, or stay where they are: look at the first frame's time.
    """
    with contextlib.suppress(av.FFmpegError):
        container.seek(math.floor(seconds / stream.time_base), stream=stream)


def packets(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """The packets of some streams; a fault of the container ends them, as the end of the file does."""
    source = container.demux(*streams)
    while True:
        try:
            packet = next(source)
        except (StopIteration, EOFError):
            return
        except av.error.ExitError as error:
            raise UserError(
                f"{container.name.removeprefix('file:')}: reading stood still for {PACKET_SECONDS:.0f} s: "
                "copy the file to a local disk"
            ) from error
        except av.FFmpegError:
            return
        yield packet


def declared_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """How long the header says that the pictures last, or the whole file where it says no more; 0 without a word."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska
    if tag:
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    return container.duration / av.time_base if container.duration else 0.0


def mp4_is_cut(path: str | os.PathLike) -> bool:
    """Whether a top-level box of an mp4 file reaches beyond the file's end."""
    size = os.path.getsize(path)
    return any(end > size for _, end in _mp4_boxes(path))


def wav_is_cut(path: str | os.PathLike) -> bool:
    """Whether a WAV file announces more than it holds. Writers to a pipe announce 0 or the largest number."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(8)
    announced = int.from_bytes(head[4:8], "little")
    return head[:4] == b"RIFF" and announced != 2**32 - 1 and announced + 8 > size + _WAV_SLACK_BYTES


def _check_file(path: pathlib.Path) -> None:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no such file: check the name") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path}: is a directory: give the video files in it ({path}/*.mp4)")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: is no regular file: save the video to a file first")
    if status.st_size == 0:
        raise UserError(f"{path}: is empty (0 bytes): get the file again")


def _why_unreadable(path: pathlib.Path, containers: str) -> str:
    with open(path, "rb") as file:
        head = file.read(512)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        lost = mp4_is_cut(path) or all(name != b"moov" for name, _ in _mp4_boxes(path))
        return f"{path}: {'truncated, its index (moov) is missing' if lost else 'damaged'}: get the whole file again"
    if containers == SOUND_CONTAINERS:
        return f"{path}: not a sound that can be read ({SOUND_CONTAINERS}): convert it (ffmpeg -i IN OUT.wav)"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return f"{path}: is text, not a video (playlists are not followed): give the video file itself"
    return f"{path}: not a video that can be read ({CONTAINERS_TEXT}): convert it (ffmpeg -i IN OUT.mp4)"


def _mp4_boxes(path: str | os.PathLike) -> Iterator[tuple[bytes, int]]:
    """(name, end in bytes) of each top-level box; the last one may end beyond the file."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        position = 0
        while position + 8 <= size:
            file.seek(position)
            head = file.read(16)
            length = int.from_bytes(head[:4])
            if length == 1:  # the true length follows in 64 bits
                length = int.from_bytes(head[8:16])
            if length < 8:  # 0: to the end of the file; else trailing bytes of another kind, which players pass over
                length = size - position
            position += length
            yield head[4:8], position
