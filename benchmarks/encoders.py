"""Our encoders against the published implementations, forward, on the CPU: a table, and a JSON line with --json.

    python benchmarks/encoders.py --encoders pvt_v2_b5 clip_vit_b_16

Both run in float32 with random weights on the same input and in turns (see ssu_jax/profiling/peers.py, which also
holds the list of encoders); a ratio below 1 means that ours is faster. A warm-up run of each is not counted. Needs
the extra [convert]. `--frames 1` shows a single picture, `--size 384` the larger input of the paper's model.
"""

import argparse
import json
import pathlib
from typing import Any

from ssu_jax.profiling import peers

COLUMNS = (
    ("encoder", lambda row: row["encoder"]),
    ("ours s", lambda row: f"{row['seconds']['ours']:.3f}"),
    ("theirs s", lambda row: f"{row['seconds']['theirs']:.3f}"),
    ("ratio", lambda row: f"{row['ratio']:.3f}"),
    ("fastest ours s", lambda row: f"{row['fastest_seconds']['ours']:.3f}"),
    ("fastest theirs s", lambda row: f"{row['fastest_seconds']['theirs']:.3f}"),
    ("ratio", lambda row: f"{row['ratio_of_fastest']:.3f}"),
    ("compile s", lambda row: f"{row['compile_seconds']:.1f}"),
)


def table(rows: list[dict[str, Any]]) -> str:
    """The figures in columns; the first three are medians."""
    cells = [[name for name, _ in COLUMNS], *([show(row) for _, show in COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def main() -> None:
    """Prints the table; `--json` writes all figures to a file, a line for each encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=list(peers.NAMES), choices=peers.NAMES, help="which")
    parser.add_argument("--frames", type=int, default=peers.FRAMES, help="pictures of a call")
    parser.add_argument("--size", type=int, default=peers.SIZE, help="side of a picture, pixels")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each implementation")
    parser.add_argument("--json", default="", help="file that receives the figures")
    args = parser.parse_args()
    rows = [peers.compare(name, args.repeats, args.frames, args.size) for name in args.encoders]
    print(table(rows))
    if args.json:
        pathlib.Path(args.json).write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
