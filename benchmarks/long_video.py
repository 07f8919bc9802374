"""Peak memory and speed of `ssu predict` on a long video, made by repeating a short one.

    python benchmarks/long_video.py --minutes 60 --json long_video.json

The short one is a clip of the built-in world, enlarged to 720 p at 25 pictures a second, or `--source FILE`. Its
packets are copied again and again, so that an hour is made in seconds. Exit code 1 if the memory of the process
that describes it rises above `--limit-mib`, or if a second of it has no description.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import av
import numpy as np

from ssu_jax.data import synthetic
from ssu_jax.visualization import pictures, writer

HEIGHT, WIDTH, FRAMES_PER_SECOND = 720, 1280, 25


def main() -> int:
    """Makes the video, describes it in a process of its own, and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the video (default: %(default)s)")
    parser.add_argument("--source", type=pathlib.Path, help="video that is repeated (default: a clip of the world)")
    parser.add_argument("--checkpoint", help="as for ssu predict (default: the shipped model)")
    parser.add_argument("--weights-dir", help="describe it by late fusion, with weights from here (as for ssu predict)")
    parser.add_argument("--only", default="json,vtt,masks,overlay", help="as for ssu predict")
    parser.add_argument("--limit-mib", type=int, default=2048, help="most memory, MiB (default: %(default)s)")
    parser.add_argument("--json", type=pathlib.Path, metavar="F", help="write the figures here as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(args, pathlib.Path(folder))
    text = json.dumps(figures, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    return 0 if figures["within_limit"] and figures["complete"] else 1


def measure(args: argparse.Namespace, folder: pathlib.Path) -> dict:
    """The figures of one run."""
    source = args.source or make_source(folder / "source.mp4")
    video = repeat(source, folder / "long.mp4", args.minutes * 60)
    command = [sys.executable, "-m", "ssu_jax.cli.main", "predict", str(video), "--out", str(folder / "out")]
    chosen = ["--weights-dir", args.weights_dir] if args.weights_dir else ["--model", "ssuformer"]
    command += ["--only", args.only, *(["--checkpoint", args.checkpoint] if args.checkpoint else chosen)]
    start = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)  # this child's own peak, not that of all children
    wall_seconds = time.monotonic() - start
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"ssu predict ended with exit code {os.waitstatus_to_exitcode(status)}")
    peak_mib = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    with av.open(str(video)) as container:
        seconds = container.duration / av.time_base
    results = folder / "out" / "long"
    return {
        "video_seconds": round(seconds, 2),
        "video_bytes": video.stat().st_size,
        "only": args.only,
        "wall_seconds": round(wall_seconds, 1),
        "video_seconds_per_second": round(seconds / wall_seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_rss_mib": round(peak_mib, 1),
        "limit_mib": args.limit_mib,
        "within_limit": peak_mib <= args.limit_mib,
        "complete": is_complete(results, args.only.split(","), seconds),
        "output_bytes": sum(one.stat().st_size for one in results.rglob("*") if one.is_file()),
    }


def make_source(path: pathlib.Path) -> pathlib.Path:
    """A clip of the built-in world at 720 p; its pictures drift, so that no two are alike."""
    clip = synthetic.make_clip(0, "test", 0)
    with writer.open_video(path, HEIGHT, WIDTH, sample_rate=clip.sample_rate) as video:
        for second, frame in enumerate(clip.frames):
            large = pictures.resize(frame, HEIGHT, WIDTH)
            for tick in range(FRAMES_PER_SECOND):
                shown = np.roll(large, 2 * tick, axis=1)
                video.write(shown, second + tick / FRAMES_PER_SECOND, 1 / FRAMES_PER_SECOND)
            video.write_sound(clip.sound[None, second * clip.sample_rate : (second + 1) * clip.sample_rate])
    return path


def repeat(source: pathlib.Path, path: pathlib.Path, seconds: float) -> pathlib.Path:
    """Copies the packets of the first video and sound streams until the length is reached."""
    with av.open(str(source)) as read:
        streams = [*read.streams.video[:1], *read.streams.audio[:1]]
        length = float(streams[0].duration * streams[0].time_base)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as target:
        copies = []
        for turn in range(max(1, round(seconds / length))):
            with av.open(str(source)) as read:
                streams = [*read.streams.video[:1], *read.streams.audio[:1]]
                copies = copies or [target.add_stream_from_template(stream) for stream in streams]
                for packet in read.demux(streams):
                    is_sound = packet.stream.type == "audio"
                    # What lies before the first picture (the encoder's run-up) or after the last would overlap.
                    if not packet.size or (is_sound and not 0 <= packet.pts * packet.time_base < length):
                        continue
                    shift = round(turn * length / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = copies[streams.index(packet.stream)]
                    target.mux(packet)
    return path


def is_complete(results: pathlib.Path, kinds: list[str], seconds: float) -> bool:
    """Whether every second has its row, its mask and its pictures."""
    wanted = max(1, int(seconds + 0.5))
    if "json" in kinds and len(json.loads((results / "prediction.json").read_text())["frames"]) != wanted:
        return False
    if "masks" in kinds and len(list((results / "masks").glob("*.png"))) != wanted:
        return False
    if "overlay" in kinds:
        with av.open(str(results / "overlay.mp4")) as container:
            return abs(container.duration / av.time_base - seconds) < 0.5
    return True


if __name__ == "__main__":
    sys.exit(main())
