"""`ssu train`: records -> checkpoints."""

HELP = "train a model on prepared records, or go on with a run that was stopped"
EPILOG = "ssu train --config configs/nano.py --workdir runs/nano --config.data.dir=data"


def add_arguments(parser) -> None:
    """`--config` and its fields are read by the program's frame."""
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="where checkpoints, metrics and TensorBoard files go; the same command again resumes from there",
    )


def run(args) -> int:
    """Trains; 0 when the run is done, or stopped and saved."""
    from ssu_jax.training import loop

    loop.train(args.config, args.workdir, verbose=args.verbose)
    return 0
