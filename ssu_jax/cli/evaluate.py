"""`ssu evaluate`: checkpoint + records -> the table and metrics.json."""

HELP = "score a model on prepared records: masks, sentences, silence, with intervals and baselines"
EPILOG = "ssu evaluate --checkpoint runs/nano --records data --split test --out metrics.json"


def add_arguments(parser) -> None:
    """Checkpoint, records, where the figures go, and how they are defined."""
    parser.add_argument(
        "--checkpoint",
        metavar="C",
        help="a working directory, one of its checkpoints or an exported folder (default: the shipped model)",
    )
    parser.add_argument("--records", required=True, metavar="DIR", help="directory of records (`ssu prepare`)")
    parser.add_argument("--split", default="test", metavar="NAME", help="split of the records (default: %(default)s)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="where the figures go as flat JSON (default: beside the checkpoint, named by the records' digest)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="clips at once (default: the checkpoint's setting); changes no score but those of avsbench",
    )
    parser.add_argument("--num-clips", type=int, default=0, metavar="N", help="the first N clips only (default: all)")
    parser.add_argument(
        "--protocol",
        choices=("ssu", "avsbench"),
        default="ssu",
        help="how mIoU and F-score are defined: avsbench is the published definition, which depends on the batch "
        "size (default there: 4) and the order of the clips (default: %(default)s)",
    )


def run(args) -> int:
    """Prints the table and writes the figures."""
    from ssu_jax.inference import scoring

    scoring.score_checkpoint(
        args.checkpoint,
        args.records,
        args.split,
        out=args.out,
        batch_size=args.batch_size,
        num_clips=args.num_clips,
        protocol=args.protocol,
        seed=args.seed,
    )
    return 0
