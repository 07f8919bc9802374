"""`ssu prepare`: makes TFRecords of a data set."""

import sys

HELP = "make records of a data set: the built-in world, which needs no download"
EPILOG = "ssu prepare synthetic --out data --split train --num-clips 2000"

NUM_CLIPS = 1000
NUM_PREVIEW_CLIPS = 4
NUM_SHARDS = 8


def add_arguments(parser) -> None:
    """`synthetic --out DIR | --preview FILE.mp4`."""
    data_sets = parser.add_subparsers(dest="data_set", required=True, metavar="DATA_SET")
    synthetic = data_sets.add_parser(
        "synthetic",
        help="the built-in world: made scenes with exact masks, sounds and sentences",
        description="Makes clips of the built-in world. Clip i of a split depends on seed, split and i alone.",
        epilog=f"examples:\n  {EPILOG}\n  ssu prepare synthetic --preview world.mp4",
    )
    synthetic.add_argument("--out", metavar="DIR", help="directory of the shards; splits may share it")
    synthetic.add_argument("--preview", metavar="FILE.mp4", help="write a few clips as a video to look at instead")
    synthetic.add_argument(
        "--plain", action="store_true", help="draw nothing into the preview: a video to give to `ssu predict`"
    )
    synthetic.add_argument(
        "--split", default="train", metavar="NAME", help="train, val, test or test-shift (default: train)"
    )
    synthetic.add_argument(
        "--num-clips",
        type=int,
        metavar="N",
        help=f"clips to make (default: {NUM_CLIPS}, {NUM_PREVIEW_CLIPS} in a preview)",
    )
    synthetic.add_argument(
        "--num-shards", type=int, metavar="K", help=f"files to spread them over (default: {NUM_SHARDS})"
    )
    synthetic.add_argument("--num-workers", type=int, metavar="W", help="processes (default: one for each core)")
    synthetic.add_argument("--overwrite", action="store_true", help="replace the split if it is already there")


def run(args) -> int:
    """Writes the split or the preview; 0 when it is whole."""
    from ssu_jax.preparation import synthetic
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
        num_shards=_or(args.num_shards, max(1, min(NUM_SHARDS, num_clips))),
        num_workers=_or(args.num_workers, synthetic.default_workers(num_clips)),
        overwrite=args.overwrite,
    )
    megabytes = sum(shard["num_bytes"] for shard in manifest["shards"]) / 1e6
    print(
        f"{args.out}: {manifest['num_records']} clips of {args.split!r} in {len(manifest['shards'])} shards, "
        f"{megabytes:.1f} MB, digest {manifest['digest'][:12]}",
        file=sys.stderr,
    )
    return 0


def _or(given: int | None, default: int) -> int:
    return default if given is None else given
