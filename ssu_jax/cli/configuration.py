"""`--config FILE.py:ROW --config.section.field=value`, by ml_collections, with errors a user can act on.

What stands behind the colon is the argument of the file's get_config(): in ours, a row of the paper's tables.
"""

import difflib
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from ssu_jax.config import Config
from ssu_jax.config.options import describe
from ssu_jax.types import UserError


class ParsedConfig(NamedTuple):
    """config: the tree with its overrides, not yet validated.  overridden: dotted names set on the command line."""

    config: Config
    overridden: frozenset[str]
    other_arguments: list[str]


def parse_config(arguments: Sequence[str]) -> ParsedConfig:
    """Takes `--config` and every `--config.section.field` out of `arguments` and leaves the rest in order.

    Raises UserError for no config file or an unreadable one, an unknown field (the nearest is named), and a
    value of the wrong type.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # else parsing would end at the first word without a dash
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=list(arguments))
    sys.modules.pop("config_config", None)  # config_flags' name for the file: else an older one shines through
    try:
        other = values(["ssu", *arguments], known_only=True)[1:]
        config = values["config"].value
        if config is None:
            raise UserError("--config is missing: name a Python file with get_config(), e.g. --config configs/nano.py")
        if not isinstance(config, Config):
            # A file that cannot be opened becomes an object that raises OSError when it is looked at.
            getattr(config, "train", None)
            raise UserError(f"{_config_path(arguments)}: get_config() must return a ssu_jax.Config, got {config!r}")
    except UserError:
        raise
    except Exception as error:  # a config file is code: anything may come out of it
        raise _explain(error, arguments) from error
    overrides = frozenset(values["config"].override_values)
    return ParsedConfig(config, overrides, other)


def options_help() -> str:
    """Every option with default and meaning, for `--help`."""
    lines = ["options of the configuration (--config.NAME=VALUE changes one; defaults of the nano size):"]
    for name, default, meaning in describe(Config()):
        shown = str(default) if len(str(default)) <= 40 else str(default)[:37] + "..."
        lines.append(f"  --config.{name}={shown}\n      {meaning}")
    return "\n".join(lines)


def nearest(name: str, known: Sequence[str]) -> str:
    """' (did you mean X?)' for the closest known name, else ''."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def _explain(error: Exception, arguments: Sequence[str]) -> UserError:
    """One line for whatever went wrong between the command line and a Config."""
    given = _config_path(arguments)
    path = given.partition(":")[0]  # what follows the colon is handed to get_config
    if isinstance(error, OSError):
        return UserError(f"--config {path}: no such readable file; wanted a Python file with get_config()")
    if isinstance(error, SyntaxError):
        return UserError(f"{path}, line {error.lineno}: {error.msg}")
    line, original = _line_in(path, error)
    if line:
        return UserError(f"{path}, line {line}: {type(original).__name__}: {original}")
    if isinstance(error, AttributeError):
        return UserError(f"{path}: no function get_config(); see configs/nano.py for an example")
    known = [name for name, _, _ in describe(Config())]
    sections = {name.rsplit(".", depth)[0] for name in known for depth in range(1, name.count(".") + 1)}
    for name in _override_names(arguments):
        if name in sections:
            fields = [option for option in known if option.startswith(name + ".")]
            return UserError(f"--config.{name} is a section: set one of its fields, {', '.join(fields[:4])}, ...")
        if name not in known:
            return UserError(f"--config.{name}: no such field{nearest(name, known)}; `ssu train --help` lists all")
    if "Traceback" in str(error):  # config_flags puts one into the message when get_config itself cannot be called
        return UserError(f"--config {given}: {original}")
    return UserError(str(error).removeprefix("flag "))


def _config_path(arguments: Sequence[str]) -> str:
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            return value if equals else "".join(arguments[position + 1 : position + 2])
    return ""


def _override_names(arguments: Sequence[str]) -> list[str]:
    names = [argument.partition("=")[0].lstrip("-") for argument in arguments if argument.startswith("-")]
    return [name.partition("config.")[2] for name in names if name.startswith(("config.", "noconfig."))]


def _line_in(path: str, error: BaseException) -> tuple[int, BaseException]:
    """(line of the config file where the error arose or 0, the first error): the libraries wrap it in others."""
    line, original = 0, error
    while original.__cause__ or original.__context__:
        original = original.__cause__ or original.__context__
    for frame in traceback.extract_tb(original.__traceback__):
        if frame.filename == path:
            line = frame.lineno or 0
    return line, original
