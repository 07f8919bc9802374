"""`ssu profile`: what a configuration costs on this machine."""

HELP = "parameters, FLOPs, speed and memory of a configuration, beside the published ones"
EPILOG = "ssu profile --config configs/nano.py --json profile.json"


def add_arguments(parser) -> None:
    """`--config` and its fields are read by the program's frame."""
    parser.add_argument(
        "--only",
        default="parameters,flops,speed,memory",
        metavar="LIST",
        help="what to find out, with commas between (default: %(default)s); parameters and flops compute nothing",
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="clips of one call (default: 1)")
    parser.add_argument(
        "--repeats", type=int, default=10, metavar="N", help="timed runs, fewer where they take long (default: 10)"
    )
    parser.add_argument("--train-step", action="store_true", help="measure a training step too, not only a prediction")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="time our PVT-v2-B5 and CLIP ViT-B/16 beside those of transformers (wants the extra [convert])",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")


def run(args) -> int:
    """Measures, prints and writes."""
    import sys

    from ssu_jax.profiling import report
    from ssu_jax.profiling.table import table

    result = report.profile(
        args.config,
        [part.strip() for part in args.only.split(",") if part.strip()],
        batch_size=args.batch_size,
        repeats=args.repeats,
        train_step=args.train_step,
        with_peers=args.peers,
        note=lambda text: print(f"{text} ...", file=sys.stderr, flush=True),
    )
    print(table(result))
    if args.json:
        report.write(result, args.json)
    return 0
