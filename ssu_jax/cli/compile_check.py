"""`ssu compile-check`: whether a training step fits a machine, before anyone pays for it."""

HELP = "compile the training step for a pod from this machine: memory, collectives, FLOPs, and whether it fits"
EPILOG = "ssu compile-check --config configs/nano.py --topology cpu:8 --json check.json"


def add_arguments(parser) -> None:
    """`--config` and its fields are read by the program's frame; `config.mesh` and `train.batch_size` matter here."""
    parser.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="cpu:8 (forced devices), a TPU slice: v5e:16x16, v6e:4x4, v5p:4x8x8 (wants the extra [tpu], no TPU), or "
        "GPUs, machines x GPUs of each: h200:4x8 (wants the extra [cuda12], no GPU)",
    )
    parser.add_argument("--num-slices", type=int, default=1, metavar="N", help="TPU slices joined (default: 1)")
    parser.add_argument("--memory", type=float, metavar="GIB", help="memory of a chip instead of the known one")
    parser.add_argument(
        "--search", action="store_true", help="if it does not fit, compile smaller batches until one does"
    )
    parser.add_argument(
        "--effort",
        choices=("low", "full"),
        default="low",
        help="of the TPU compiler; full is what a run gets, takes many times as long and needs a little less memory "
        "(default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")


def run(args) -> int:
    """Compiles in a process of its own, prints and writes; 1 where it does not fit."""
    from ssu_jax.profiling import check_table, compile_check, report, topology
    from ssu_jax.types import UserError

    if args.memory is not None and not args.memory > 0:
        raise UserError(f"--memory must be above 0, got {args.memory}")
    machine = topology.parse(args.topology, args.num_slices)
    result = compile_check.check(args.config, machine, memory=args.memory, search=args.search, effort=args.effort)
    print(check_table.table(result))
    if args.json:
        report.write(result, args.json)
    return 0 if result["fits"] else 1
