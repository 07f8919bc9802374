"""Which model `ssu predict` and `ssu evaluate` run: options, and what does not go together."""

from collections.abc import Mapping
from pathlib import Path


def add_arguments(parser, default: str) -> None:
    """--checkpoint, --model and --weights-dir. default: which model it is without them, for the help."""
    parser.add_argument(
        "--checkpoint",
        metavar="C",
        help="run SSUFormer or T-VSL from here: a working directory, one of its checkpoints or an exported folder",
    )
    parser.add_argument(
        "--model",
        choices=("late_fusion", "ssuformer", "tvsl"),
        help="late_fusion: published networks, for real video (`ssu weights get yamnet deeplab_v3`); ssuformer: "
        "--checkpoint, or the small model that ships; tvsl: heat maps of words, --checkpoint or the small one that "
        f"ships (default: {default})",
    )
    parser.add_argument(
        "--weights-dir",
        metavar="DIR",
        help="folder of late fusion's weights, for machines without internet: as published, or as `ssu weights get` "
        "stores them (default: the cache)",
    )


def published(args) -> Mapping[str, Path] | None:
    """Converted weights from --weights-dir, None without it. Raises UserError: options that do not go together."""
    from ssu_jax.types import UserError

    if args.model == "late_fusion" and args.checkpoint:
        raise UserError("--checkpoint goes with SSUFormer, --model says late_fusion: leave one of them out")
    if not args.weights_dir:
        return None
    if args.checkpoint or args.model in ("ssuformer", "tvsl"):
        other = "--checkpoint" if args.checkpoint else f"--model {args.model}"
        raise UserError(f"--weights-dir holds weights of late fusion and does not go with {other}: leave one out")
    from ssu_jax.conversion import getting
    from ssu_jax.inference import loading

    return getting.ready(loading.PUBLISHED, args.weights_dir)
