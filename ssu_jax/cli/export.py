"""`ssu export`: a checkpoint -> a folder to hand on."""

HELP = "write a trained model as a folder to hand on: safetensors, configuration, words, licence, card"
EPILOG = "ssu export --checkpoint runs/nano --out nano --metrics runs/nano/metrics.json"


def add_arguments(parser) -> None:
    """Which model, where to, and how it is stored."""
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="working directory, or a sealed step of one")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder that is made, or made anew")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="type of the stored numbers: bfloat16 is half as large, float32 is exact (default: bfloat16)",
    )
    parser.add_argument("--metrics", metavar="FILE", help="metrics.json of `ssu evaluate`, shown on the model card")


def run(args) -> int:
    """Exports and says where."""
    from ssu_jax.inference import export

    folder = export.export(args.checkpoint, args.out, dtype=args.dtype, metrics=args.metrics)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    print(f"exported to {folder} ({size / 1e6:.1f} MB)")
    return 0
