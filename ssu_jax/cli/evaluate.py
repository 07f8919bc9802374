"""`ssu evaluate`: checkpoint + records -> the table and metrics.json; ours beside the paper's figures."""

from ssu_jax.cli import choice

HELP = "score a model on prepared records: masks, sentences, silence, with intervals and baselines"
EPILOG = """ssu evaluate --checkpoint runs/nano --records data --split test --out metrics.json
  ssu evaluate --checkpoint runs/nano --records data --split test --routing routing
  ssu evaluate --checkpoint runs/tvsl --records data --split test --sources 3
  ssu evaluate --table --metrics runs/*/metrics.json"""


def add_arguments(parser) -> None:
    """Checkpoint, records, where the figures go, and how they are defined."""
    choice.add_arguments(parser, "the shipped model")
    parser.add_argument("--records", metavar="DIR", help="directory of records (`ssu prepare`)")
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
    parser.add_argument(
        "--table",
        nargs="?",
        const="ssuformer",
        choices=("ssuformer", "tvsl"),
        help="print the published tables too, with ours in the same columns (default: ssuformer)",
    )
    parser.add_argument(
        "--routing",
        nargs="?",
        const="",
        metavar="DIR",
        help="also show which experts serve which class and kind of second, and which prompt level led the router: a "
        "picture a block, and routing.json (default DIR: beside the figures)",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="FILE",
        help="figures of earlier evaluations for --table; without --records nothing is evaluated",
    )
    _add_mixtures(parser.add_argument_group("T-VSL"))


def _add_mixtures(group) -> None:
    group.add_argument("--sources", type=int, metavar="N", help="sources of a mixture (default: as it was trained)")
    group.add_argument("--classes", metavar="NAMES", help="only these sound in the mixtures, commas between")
    group.add_argument(
        "--as-it-is",
        action="store_true",
        help="no mixtures, the records one by one, with --sources sounding in one picture (default: 1)",
    )
    group.add_argument(
        "--threshold",
        type=float,
        metavar="H",
        help="heat from which on a pixel is in the mask of a word (default: the checkpoint's setting)",
    )


def run(args) -> int:
    """Prints the tables and writes the figures."""
    from ssu_jax.inference import scoring

    _check(args)
    known = [scoring.read_metrics(place) for place in args.metrics]
    if args.records:
        known.append(scoring.read_metrics(_score(args)))
    if args.table or args.metrics:
        if args.records:
            print()
        of_words = bool(known) and all(metrics.get("family") == "tvsl" for metrics in known)
        scoring.compare(args.table or ("tvsl" if of_words else "ssuformer"), known)
    return 0


def _check(args) -> None:
    from ssu_jax.types import UserError

    scored_alone = {"--checkpoint": args.checkpoint, "--model": args.model, "--weights-dir": args.weights_dir,
                    "--out": args.out, "--num-clips": args.num_clips, "--routing": args.routing is not None,
                    "--sources": args.sources is not None, "--classes": args.classes, "--as-it-is": args.as_it_is,
                    "--threshold": args.threshold is not None}  # fmt: skip
    given = [option for option, value in scored_alone.items() if value]
    if not args.records and (given or not (args.table or args.metrics)):
        asked = f" ({given[0]} is for an evaluation)" if given else ""
        raise UserError(f"--records is missing{asked}: name the directory of records, or give --table alone")


def _score(args):
    from ssu_jax.inference import scoring

    published = choice.published(args)
    return scoring.score_checkpoint(
        args.checkpoint,
        args.records,
        args.split,
        family=args.model,
        published=published,
        out=args.out,
        batch_size=args.batch_size,
        num_clips=args.num_clips,
        protocol=args.protocol,
        seed=args.seed,
        routing=args.routing,
        mixtures={
            "sources": args.sources,
            "classes": args.classes,
            "as_it_is": args.as_it_is,
            "threshold": args.threshold,
        },
    )
