"""The program `ssu`: picks the verb, parses, runs it, and turns errors into one line and an exit code.

Exit codes: 0 done, or preempted with everything saved; 1 a check failed; 2 a user's mistake;
70 a defect of this program; 75 peer lost; 76 stalled; 77 numeric budget; 78 data budget or manifest;
79 no usable checkpoint; 130 interrupted with Ctrl-C where there is nothing to save.

Nothing heavy is imported here, nor at the top of a verb's module: `ssu VERB --help` answers at once.
"""

import argparse
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

import ssu_jax
from ssu_jax.cli import compile_cache, configuration
from ssu_jax.types import UserError

VERBS = ("prepare", "train", "evaluate", "predict", "export", "convert", "weights", "data", "profile", "compile-check")
CONFIGURED = frozenset({"train", "profile", "compile-check"})  # verbs that take --config

DEFECT = 70
INTERRUPTED = 130
# The machine's state, which the user can mend, not a defect: said in one line.
_MENDABLE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR,
             errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (default: this process's) and returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name, verbose = "ssu", "--verbose" in arguments
    try:
        if arguments and arguments[0] in VERBS:
            name = f"ssu {arguments[0]}"
        args = _parse(arguments)
        if args.compile_cache:
            compile_cache.enable()
        return args.run(args)
    except SystemExit as stop:  # argparse after --help, --version or a wrong argument
        return stop.code if isinstance(stop.code, int) else 2
    except UserError as error:
        return _complain(name, str(error), error.exit_code, verbose)
    except KeyboardInterrupt:
        return _complain(name, "interrupted", INTERRUPTED, verbose)
    except BrokenPipeError:  # `ssu ... | head` closed the pipe: no one is left to complain to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except OSError as error:
        if error.errno in _MENDABLE:
            return _complain(name, f"{error.strerror}: {error.filename or 'while writing'}", 2, verbose)
        return _complain(name, _defect(error), DEFECT, verbose)
    except Exception as error:
        return _complain(name, _defect(error), DEFECT, verbose)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class _VerbParser(_Parser):
    """A parser with the options every verb has, at every level of nesting."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # No defaults here: a nested parser's default would overwrite the value its parent has read.
        common = self.add_argument_group("common options", argument_default=argparse.SUPPRESS)
        common.add_argument("--seed", type=_seed, metavar="N", help="source of every random choice (default: 0)")
        common.add_argument(
            "--verbose", action="store_true", help="show the traceback of an error, and the libraries' notes"
        )
        common.add_argument(
            "--no-compile-cache",
            dest="compile_cache",
            action="store_false",
            help="do not keep compiled programs between runs (they lie in $XDG_CACHE_HOME/ssu_jax)",
        )

    def options(self) -> list[str]:
        """Every `--option` of this parser and the parsers below it."""
        found = [option for action in self._actions for option in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                found += [option for below in action.choices.values() for option in below.options()]
        return found


def _parse(arguments: list[str]) -> argparse.Namespace:
    verb = arguments[0] if arguments else "--help"
    if verb not in (*VERBS, "-h", "--help", "--version"):
        raise UserError(f"{verb!r} is no verb{configuration.nearest(verb, VERBS)}: wanted one of {', '.join(VERBS)}")
    parser, verb_parsers = _build([verb] if verb in VERBS else VERBS)
    if not arguments:
        parser.print_help()
        raise SystemExit(2)
    parsed = None
    if verb in CONFIGURED and not {"-h", "--help"}.intersection(arguments):
        parsed = configuration.parse_config(arguments)
        arguments = parsed.other_arguments
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        guess = configuration.nearest(unknown[0].partition("=")[0], verb_parsers[verb].options())
        raise UserError(f"unknown argument {unknown[0]}{guess}; see ssu {verb} --help")
    return _complete(args, parsed)


def _build(verbs: Sequence[str]) -> tuple[_Parser, dict[str, _VerbParser]]:
    parser = _Parser(
        prog="ssu",
        description="For every second of a video: a mask of the pixels that sound, and a sentence about them.",
        epilog="example:\n  ssu predict my.mp4 --out out\n\n`ssu VERB --help` shows a verb's options and an example.",
    )
    parser.add_argument("--version", action="version", version=_version())
    choices = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True, parser_class=_VerbParser)
    for verb in verbs:
        module = importlib.import_module(f"ssu_jax.cli.{verb.replace('-', '_')}")
        epilog = f"example:\n  {module.EPILOG}"
        if verb in CONFIGURED:
            epilog += "\n\n" + configuration.options_help()
        below = choices.add_parser(verb, help=module.HELP, description=module.HELP, epilog=epilog)
        if verb in CONFIGURED:
            below.add_argument("--config", metavar="FILE.py", help="file whose get_config() returns the configuration")
        if len(verbs) == 1:  # the list of verbs shows no options
            module.add_arguments(below)
        below.set_defaults(run=module.run)
    return parser, choices.choices


def _complete(args: argparse.Namespace, parsed: configuration.ParsedConfig | None) -> argparse.Namespace:
    """Fills in the common options that were not given; joins --seed with the configuration."""
    args.verbose = getattr(args, "verbose", False)
    args.compile_cache = getattr(args, "compile_cache", True)
    seed = getattr(args, "seed", None)
    if parsed is None:
        args.seed = 0 if seed is None else seed
        return args
    if seed is not None:
        if "train.seed" in parsed.overridden and parsed.config.train.seed != seed:
            raise UserError(f"--seed {seed} and --config.train.seed={parsed.config.train.seed} differ: give one")
        parsed.config.train.seed = seed
    args.config = parsed.config.validate()
    args.seed = args.config.train.seed
    return args


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"wanted 0 to {2**31 - 1}, got {text}")
    return value


def _version() -> str:
    installed = [found for found in map(_installed, ("jax", "flax", "grain")) if found]
    return f"ssu_jax {ssu_jax.__version__} ({', '.join([f'Python {sys.version.split()[0]}', *installed])})"


def _installed(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""


def _defect(error: Exception) -> str:
    return f"unexpected {type(error).__name__}: {error} (a defect: --verbose shows where it arose)"


def _complain(name: str, message: str, exit_code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(f"{name}: error: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
