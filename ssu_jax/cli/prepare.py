"""`ssu prepare`: makes records of a data set."""

import sys

HELP = "make records of a data set: the built-in world, a published set, or any folder of videos"
EPILOG = """ssu prepare synthetic --out data --split train --num-clips 2000
  ssu prepare avsbench_s4 --source AVSBench --check
  ssu prepare avsbench_s4 --source AVSBench --out records/s4
  ssu prepare raw --source videos --out records/raw"""

NUM_CLIPS = 1000
NUM_PREVIEW_CLIPS = 4
LEAST_RATE, MOST_RATE = 8000, 48000  # Hz, as config.data.sample_rate


def add_arguments(parser) -> None:
    """`synthetic --out DIR | --preview FILE.mp4`, `NAME --source DIR --out DIR`."""
    from ssu_jax.data.datasets import LAYOUTS

    data_sets = parser.add_subparsers(dest="data_set", required=True, metavar="DATA_SET")
    _add_synthetic(data_sets)
    for name, layout in LAYOUTS.items():
        _add_layout(data_sets, name, layout)


def run(args) -> int:
    """Writes the splits, the preview or the example; 0 when all is whole."""
    return _run_synthetic(args) if args.data_set == "synthetic" else _run_layout(args)


def _add_synthetic(data_sets) -> None:
    synthetic = data_sets.add_parser(
        "synthetic",
        help="the built-in world: made scenes with exact masks, sounds and sentences",
        description="Makes clips of the built-in world. Clip i of a split depends on seed, split and i alone.",
        epilog="examples:\n  ssu prepare synthetic --out data --split train --num-clips 2000\n"
        "  ssu prepare synthetic --preview world.mp4",
    )
    synthetic.add_argument("--preview", metavar="FILE.mp4", help="write a few clips as a video to look at instead")
    synthetic.add_argument(
        "--plain", action="store_true", help="draw nothing into the preview: a video to give to `ssu predict`"
    )
    synthetic.add_argument(
        "--split", default="train", metavar="NAME", help="train, val, test or test-shift (default: %(default)s)"
    )
    synthetic.add_argument(
        "--num-clips",
        type=int,
        metavar="N",
        help=f"clips to make (default: {NUM_CLIPS}, {NUM_PREVIEW_CLIPS} in a preview)",
    )
    _add_common(synthetic, "processes")


def _add_layout(data_sets, name: str, layout) -> None:
    from ssu_jax.data.datasets import Reading

    parser = data_sets.add_parser(
        name,
        help=layout.title,
        description=f"{layout.title}. docs/data_sets.md draws the folder; --write-example makes a small one.",
        epilog=f"examples:\n  ssu prepare {name} --source DIR --check\n  ssu prepare {name} --source DIR --out records",
    )
    default = Reading()
    parser.add_argument("--source", metavar="DIR", help="folder of the data set as it was distributed")
    parser.add_argument("--split", metavar="NAME", help="this split alone (default: all)")
    parser.add_argument("--check", action="store_true", help="name every missing or unreadable file; write nothing")
    parser.add_argument(
        "--skip-bad", type=int, default=0, metavar="N",
        help="leave out up to N clips that cannot be read; they are counted, and the manifest lists them (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--frame-size", type=int, default=default.frame_size, metavar="PIXELS",
        help="shorter side of the frames at most (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--sample-rate", type=int, default=default.sample_rate, metavar="HZ",
        help="samples a second to which the sound is decoded from the files; one whose own rate is lower gains nothing "
        "by it. AudioCLIP (config.tvsl.trio audioclip) wants 44100 (default: %(default)s)",
    )  # fmt: skip
    if name == "raw":
        parser.add_argument(
            "--val-share", type=float, default=0.0, metavar="SHARE",
            help="of the files that go to the split val (default: %(default)s)",
        )  # fmt: skip
    parser.add_argument("--write-example", metavar="DIR", help="write a small made folder of exactly this layout")
    _add_common(parser, "auto")


def _add_common(parser, runner: str) -> None:
    from ssu_jax.data.shards import FILE_FORMATS
    from ssu_jax.preparation.tasks import RUNNERS

    parser.add_argument("--out", metavar="DIR", help="folder, or URL (gs://...), of the shards; splits may share it")
    parser.add_argument(
        "--format", choices=FILE_FORMATS, default="tfrecord", help="of the files (default: %(default)s)"
    )
    parser.add_argument("--num-shards", type=int, metavar="K", help="files a split (default: about 128 clips each)")
    parser.add_argument("--num-workers", type=int, metavar="W", help="processes here (default: one for each core)")
    parser.add_argument(
        "--runner", choices=RUNNERS, default=runner,
        help="who makes the shards: processes of our own, or Apache Beam, here (direct) or on a cluster; auto takes "
        "direct where Beam is installed, else processes. The files are the same (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--beam-options", default="", metavar="'--NAME=VALUE ...'", help="Apache Beam's own options for its runner"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a split if it is already there")


def _run_synthetic(args) -> int:
    from ssu_jax.preparation import splits, synthetic
    from ssu_jax.types import UserError

    if bool(args.out) == bool(args.preview):
        raise UserError("ssu prepare synthetic wants either --out DIR or --preview FILE.mp4")
    if args.preview:
        num_clips = _or(args.num_clips, NUM_PREVIEW_CLIPS)
        synthetic.preview(args.preview, args.split, num_clips=num_clips, seed=args.seed, plain=args.plain)
        print(args.preview)
        return 0
    num_clips = _or(args.num_clips, NUM_CLIPS)
    manifest = synthetic.prepare(
        args.out,
        args.split,
        num_clips=num_clips,
        seed=args.seed,
        num_shards=_or(args.num_shards, splits.default_num_shards(num_clips)),
        execution=_execution(args, num_clips),
        file_format=args.format,
        overwrite=args.overwrite,
    )
    _tell(args.out, manifest)
    return 0


def _run_layout(args) -> int:
    import pathlib

    from ssu_jax.data.datasets import LAYOUTS, Reading
    from ssu_jax.preparation import data_sets
    from ssu_jax.types import UserError

    kind = LAYOUTS[args.data_set]
    if args.write_example:
        folder = pathlib.Path(args.write_example)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"--write-example {folder}: something is there already: name a new or an empty folder")
        kind.write_example(folder, seed=args.seed)
        print(args.write_example)
        return 0
    if not args.source or not (args.check or args.out):
        raise UserError(f"ssu prepare {args.data_set} wants --source DIR and --out DIR, or --source DIR --check")
    if not 16 <= args.frame_size <= 4096:
        raise UserError(f"--frame-size must be 16 to 4096 pixels, got {args.frame_size}")
    if not LEAST_RATE <= args.sample_rate <= MOST_RATE:
        raise UserError(f"--sample-rate must be {LEAST_RATE} to {MOST_RATE} Hz, got {args.sample_rate}")
    own = {"val_share": args.val_share} if args.data_set == "raw" else {}
    layout = kind(pathlib.Path(args.source), Reading(args.frame_size, args.sample_rate), **own)
    found = data_sets.listed(layout, args.split)
    items = [item for split in found.values() for item in split]
    bad = data_sets.faults(layout, items)
    for line in (line for lines in bad.values() for line in lines):
        print(line)
    counts = ", ".join(f"{len(items)} of {split!r}" for split, items in found.items())
    print(f"{args.source}: {len(items)} clips ({counts}), {len(bad)} with faults", file=sys.stderr)
    if args.check:
        return 1 if bad else 0
    if len(bad) > args.skip_bad:
        raise UserError(
            f"{len(bad)} of {len(items)} clips cannot be read (listed above), --skip-bad allows {args.skip_bad}: mend "
            "the files, or allow more",
            data_sets.DATA_BUDGET,
        )
    budget = args.skip_bad
    for split, mine in found.items():
        manifest = data_sets.prepare(
            layout,
            args.out,
            split,
            mine,
            bad,
            execution=_execution(args, len(mine)),
            num_shards=args.num_shards,
            file_format=args.format,
            skip_bad=budget,
            overwrite=args.overwrite,
        )
        budget -= len(manifest["source"].get("skipped", []))
        _tell(args.out, manifest)
    return 0


def _execution(args, num_clips: int):
    from ssu_jax.preparation.tasks import Execution, default_workers

    return Execution(args.runner, _or(args.num_workers, default_workers(num_clips)), args.beam_options)


def _tell(out: str, manifest: dict) -> None:
    megabytes = sum(shard["num_bytes"] for shard in manifest["shards"]) / 1e6
    skipped = manifest["source"].get("skipped", [])
    print(
        f"{out}: {manifest['num_records']} clips of {manifest['split']!r} in {len(manifest['shards'])} shards, "
        f"{megabytes:.1f} MB, digest {manifest['digest'][:12]}" + (f", {len(skipped)} skipped" if skipped else ""),
        file=sys.stderr,
    )


def _or(given: int | None, default: int) -> int:
    return default if given is None else given
