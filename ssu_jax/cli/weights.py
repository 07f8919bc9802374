"""`ssu weights`: published weights by name."""

import pathlib
import sys

HELP = "list, fetch and check published weights"
EPILOG = "ssu weights get yamnet deeplab_v3"


def add_arguments(parser) -> None:
    """`list`, `get NAME...`, `verify`, each with --weights-dir."""
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    _add_job(jobs, "list", "what there is, how large, under which licence, and where it lies on this machine")
    get = _add_job(jobs, "get", "fetch, check and convert; what is there and whole is left alone", " yamnet deeplab_v3")
    get.add_argument("names", nargs="+", metavar="NAME", help="names that `ssu weights list` shows, or all")
    _add_job(jobs, "verify", "compare every digest of what is there; exit code 1 if anything is damaged")


def run(args) -> int:
    """Does the job; 0 when all is well."""
    return {"list": _list, "get": _get, "verify": _verify}[args.job](args)


def _add_job(jobs, name: str, what: str, words: str = ""):
    job = jobs.add_parser(name, help=what, description=what, epilog=f"example:\n  ssu weights {name}{words}")
    job.add_argument(
        "--weights-dir",
        metavar="DIR",
        help="folder that holds published files or converted folders: nothing is downloaded (what is converted goes to "
        "the cache: $SSU_WEIGHTS_DIR, else $XDG_CACHE_HOME/ssu_jax/weights)",
    )
    return job


def _list(args) -> int:
    from ssu_jax import weights

    width = max(map(len, weights.NAMES))
    for name in weights.NAMES:
        line, folder = weights.published(name), weights.folder_of(name, args.weights_dir)
        state = str(folder) if folder else _files_in(line, args.weights_dir) or "not here"
        print(f"{name:{width}}  {line.kind:12}  {line.num_bytes / 1e6:4.1f} MB  {line.licence:10}  {state}")
        print(f"{'':{width}}  {line.what}")
    print(f"cache: {weights.cache_folder()}", file=sys.stderr)
    return 0


def _files_in(line, weights_dir: str | None) -> str:
    if weights_dir is None or not all((pathlib.Path(weights_dir) / file.name).is_file() for file in line.files):
        return ""
    return f"{weights_dir} (published: {', '.join(file.name for file in line.files)})"


def _get(args) -> int:
    from ssu_jax import weights
    from ssu_jax.conversion import getting

    names = list(dict.fromkeys(weights.NAMES if "all" in args.names else args.names))
    for name in names:
        weights.published(name)  # a wrong name is said before the first download
    for name in names:
        folder, is_new = getting.get(name, args.weights_dir)
        print(f"{name}: {'converted into' if is_new else 'there already, every digest right:'} {folder}")
    return 0


def _verify(args) -> int:
    from ssu_jax import weights
    from ssu_jax.conversion import getting

    places = [weights.cache_folder()] + ([pathlib.Path(args.weights_dir)] if args.weights_dir else [])
    num_checked = num_faults = 0
    for place in places:
        for name in weights.NAMES:
            found = getting.faults_of_files(name, place)
            num_checked += sum((place / file.name).is_file() for file in weights.published(name).files)
            if (folder := place / name).exists():
                num_checked += 1
                found += filter(None, [getting.faults(name, folder)])
            for fault in found:
                print(f"{name}: {fault}; mend: {_mend(name, place, args.weights_dir)}")
            num_faults += len(found)
    print(f"{num_checked} checked, {num_faults or 'no'} faults", file=sys.stderr)
    return 1 if num_faults else 0


def _mend(name: str, place: pathlib.Path, weights_dir: str | None) -> str:
    from ssu_jax import weights

    if weights_dir is None or place != pathlib.Path(weights_dir):
        return f"ssu weights get {name}"
    urls = ", ".join(file.url for file in weights.published(name).files)
    return f"remove it and copy it anew ({urls})"
