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
    parser.add_argument(
        "--stopped-code",
        type=int,
        default=0,
        choices=range(256),
        metavar="N",
        help="exit code of a run that was stopped and saved before its last step (default: 0); a cluster that starts "
        "a run again by its exit code takes 75",
    )


def run(args) -> int:
    """Trains; 0 when the run is done, or stopped and saved unless another code was asked for."""
    from ssu_jax.training import loop, processes

    processes.join(args.config.train.peer_timeout_seconds)
    state = loop.train(args.config, args.workdir, verbose=args.verbose)
    return 0 if int(state.step) >= args.config.train.num_steps else args.stopped_code
