"""`ssu predict`: videos -> masks, sentences, annotated videos."""

HELP = "describe videos: a mask of what sounds and a sentence for every second, and an annotated video"
EPILOG = "ssu predict my.mp4 --out predictions"


def add_arguments(parser) -> None:
    """Videos, checkpoint, where results go and which."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="video files of any common kind and length")
    parser.add_argument(
        "--checkpoint",
        metavar="C",
        help="describe with SSUFormer from here: a working directory, one of its checkpoints or an exported folder",
    )
    parser.add_argument(
        "--model",
        choices=("late_fusion", "ssuformer"),
        help="late_fusion: published networks, for real video (`ssu weights get`); ssuformer: --checkpoint, or the "
        "small model that ships (default: late_fusion where its weights are at hand, else the shipped model)",
    )
    parser.add_argument(
        "--weights-dir",
        metavar="DIR",
        help="folder of published weights, for machines without internet: as published or as `ssu weights get` "
        "stores them (default: the cache)",
    )
    parser.add_argument(
        "--out", default="predictions", metavar="DIR", help="results go to DIR/<video name>/ (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        default="json,vtt,masks,overlay",
        metavar="KINDS",
        help="which results, with commas (default: %(default)s)",
    )


def run(args) -> int:
    """Describes every video; 0 when all are done."""
    from ssu_jax.inference import describing

    describing.describe_videos(
        args.videos,
        args.out,
        only=args.only,
        model=args.model,
        checkpoint=args.checkpoint,
        published=_published(args),
    )
    return 0


def _published(args):
    """Converted weights from --weights-dir."""
    from ssu_jax.types import UserError

    if args.model == "late_fusion" and args.checkpoint:
        raise UserError("--checkpoint goes with SSUFormer, --model says late_fusion: leave one of them out")
    if not args.weights_dir:
        return None
    if args.checkpoint or args.model == "ssuformer":
        other = "--checkpoint" if args.checkpoint else "--model ssuformer"
        raise UserError(f"--weights-dir holds weights of late fusion and does not go with {other}: leave one out")
    from ssu_jax.conversion import getting
    from ssu_jax.inference import loading

    return getting.ready(loading.PUBLISHED, args.weights_dir)
