"""`ssu convert`: published weights -> ours, back, and the comparison of both models."""

import contextlib
import pathlib
import sys
import tempfile

HELP = "convert published weights (safetensors, .npz, .tflite, llama2.c, .pth) to ours, and back"
EPILOG = "ssu convert path/to/clip-vit-base-patch16 --out weights/clip"


def add_arguments(parser) -> None:
    """From where, to where, what it is."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder or file of published weights; a hub id (org/name); a URL (with --sha256); "
        "with --back, a folder that this command wrote. What lies here is never looked for elsewhere",
    )
    parser.add_argument("--out", metavar="DIR", help="folder that is made (or made anew, if this command wrote it)")
    parser.add_argument(
        "--kind",
        help="what the weights are: pvt_v2, clip, audioclip, vggish, yamnet, mobilenet_v2, deeplab_v3, causal_lm, "
        "fastestdet, shufflenet_v2 (default: what config.json says, or the names of the tensors)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="type of the stored numbers (default: float32; with --back, what they are stored as)",
    )
    parser.add_argument("--tokenizer", metavar="FILE", help="vocabulary that does not lie with the weights")
    parser.add_argument("--published-config", metavar="FILE", help="config.json that does not lie with the weights")
    parser.add_argument(
        "--check",
        action="store_true",
        help="run the published implementation and ours on the same input; exit code 1 if a feature differs by more "
        "than 2e-5, 2 where no package has that implementation. Without --out nothing is kept",
    )
    parser.add_argument("--back", action="store_true", help="ours -> the published layout")
    parser.add_argument("--sha256", metavar="HEX", help="digest of SOURCE, if that is one file; compared before use")
    parser.add_argument("--revision", help="branch, tag or commit of a hub id")


def run(args) -> int:
    """Converts, says what was done, and compares where asked."""
    from ssu_jax.conversion.rules import MisfitError
    from ssu_jax.types import UserError

    _check(args)
    try:
        return _back(args) if args.back else _forth(args)
    except MisfitError as error:
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        raise UserError(f"{error.where}: {len(error.problems)} tensors do not fit, listed above") from error


def _check(args) -> None:
    from ssu_jax.types import UserError

    if args.out is None and not args.check:
        raise UserError("the argument --out is missing: name the folder to write (--check alone needs none)")
    forth_alone = {"--check": args.check, "--kind": args.kind, "--tokenizer": args.tokenizer, "--sha256": args.sha256,
                   "--revision": args.revision, "--published-config": args.published_config}  # fmt: skip
    if args.back and (given := [option for option, value in forth_alone.items() if value]):
        raise UserError(f"{given[0]} does not go with --back: leave it out")


def _back(args) -> int:
    from ssu_jax.conversion import converting

    _report(converting.convert_back(pathlib.Path(args.source), pathlib.Path(args.out), dtype=args.dtype))
    return 0


def _forth(args) -> int:
    from ssu_jax.conversion import converting, fetching, folders, sources

    with contextlib.ExitStack() as stack:
        out = args.out or stack.enter_context(tempfile.TemporaryDirectory()) + "/converted"
        scratch = stack.enter_context(folders.scratch_folder(pathlib.Path(out)))
        found = fetching.find(args.source, scratch, sha256=args.sha256, revision=args.revision)
        source = sources.open_source(found.place, scratch, _path(args.published_config))
        report = converting.convert(
            source,
            pathlib.Path(out),
            args.kind or converting.kind_of(source),
            dtype=args.dtype or "float32",
            vocabulary=_path(args.tokenizer),
            origin=found.origin,
        )
        _report(report, kept=args.out is not None)
        return _compare(report.folder, source.place, args.seed) if args.check else 0


def _compare(folder: pathlib.Path, published: pathlib.Path, seed: int) -> int:
    from ssu_jax.conversion import checking

    found = checking.compare(folder, published, seed)
    width = max(map(len, found.differences))
    print(f"largest absolute difference to the published implementation (wanted: at most {checking.TOLERANCE:g})")
    for name, difference in found.differences.items():
        print(f"  {name:{width}}  {difference:.3g}{'' if difference <= checking.TOLERANCE else '  too large'}")
    if found.ours_alone:
        print(f"ours alone, not compared: {', '.join(found.ours_alone)}")
    return 0 if found.largest <= checking.TOLERANCE else 1


def _report(report, kept: bool = True) -> None:
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    ignored = f" ({report.num_ignored} that it has no use for left out)" if report.num_ignored else ""
    print(f"{report.kind}: {report.num_tensors} tensors{ignored}, {report.num_parameters:,} parameters, "
          f"{report.num_bytes / 1e6:.1f} MB, sha256 {report.sha256}")  # fmt: skip
    if kept:
        print(f"written to {report.folder}")


def _path(text: str | None) -> pathlib.Path | None:
    return pathlib.Path(text) if text else None
