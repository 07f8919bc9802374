"""Promises of the package as a whole: it imports, fast and lightly; its configs load; its parts stay small."""

import ast
import importlib
import importlib.metadata
import pathlib
import pkgutil
import re
import runpy
import subprocess
import sys

import pytest

import ssu_jax
from ssu_jax.cli.main import VERBS
from ssu_jax.config import Config

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path for folder in ("ssu_jax", "configs", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")
)
HEAVY = "jax jaxlib flax optax orbax grain tensorflow torch transformers librosa matplotlib scipy numba".split()
MOST_SECONDS = 1.0

FILE_LINES, TEST_FILE_LINES, FUNCTION_LINES, ARGUMENTS = 350, 500, 60, 6
LONGER_FUNCTIONS = {"ssu_jax/training/loop.py": 120}  # the loop reads best in one piece


def test_every_module_imports():
    names = [module.name for module in pkgutil.walk_packages(ssu_jax.__path__, "ssu_jax.")]
    assert len(names) > 30
    for name in names:
        importlib.import_module(name)


def test_every_public_name_resolves():
    for name in ssu_jax.__all__:
        assert getattr(ssu_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ssu_jax.nothing


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.name)
def test_every_config_loads_and_survives_json(path):
    config = runpy.run_path(str(path))["get_config"]().validate()
    assert Config.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "code",
    ["import ssu_jax", *(f"from ssu_jax.cli.main import main; main(['{verb}', '--help'])" for verb in ("", *VERBS))],
)
def test_import_and_help_are_quick_and_light(code):
    # Processor time, interpreter's start included: the same on a busy machine and on a free one.
    program = (
        f"import sys, time; {code.replace(chr(39) * 2 + ', ', '')}; "
        f"print('took', time.process_time(), [name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, _, loaded = result.stdout.rpartition("took ")[2].partition(" ")
    assert loaded.strip() == "[]"
    assert float(seconds) < MOST_SECONDS


def test_data_and_metrics_load_no_jax():
    program = (
        "import importlib, pkgutil, sys, ssu_jax.data, ssu_jax.metrics\n"
        "for room in (ssu_jax.data, ssu_jax.metrics):\n"
        "    for module in pkgutil.walk_packages(room.__path__, room.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "print('jax' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    name, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    assert path.name not in ("utils.py", "common.py", "helpers.py", "misc.py"), "name the file by its one idea"
    limit = TEST_FILE_LINES if name.startswith("tests") else FILE_LINES
    assert text.count("\n") < limit
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{name}:{node.lineno} {node.name}"
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= LONGER_FUNCTIONS.get(name, FUNCTION_LINES), f"{where} has {lines} lines"
            arguments = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
            if not name.startswith("tests"):  # fixtures are arguments too
                assert len(arguments) <= ARGUMENTS, f"{where} takes {len(arguments)} positional arguments"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_loose_ends(path):
    text = path.read_text(encoding="utf-8")
    marker = re.search(r"# *(" + "TO" + "DO|FIX" + "ME|XX" + r"X)\b", text)
    assert not marker, f"do it or drop it: {marker.group() if marker else ''}"
    assert not re.search(r"['\"](/home/|/Users/|/root/)", text), "a path of somebody's machine"


def test_pins_are_exact_and_within_the_ranges_of_setup():
    from packaging.requirements import Requirement

    lines = [line.partition("  #")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all([specifier.operator for specifier in pin.specifier] == ["=="] for pin in pins)
    metadata = importlib.metadata.requires("ssu_jax")
    for wanted in map(Requirement, metadata):
        if wanted.marker and not wanted.marker.evaluate({"extra": "test"}):
            continue
        found = [pin for pin in pins if pin.name.replace("-", "_").lower() == wanted.name.replace("-", "_").lower()]
        assert found, f"{wanted.name} is not pinned"
        for pin in found:
            version = next(iter(pin.specifier)).version
            assert wanted.specifier.contains(version, prereleases=True), f"{pin} against {wanted}"


def test_stated_packages_are_pinned_for_both_pythons():
    text = (ROOT / "requirements.txt").read_text()
    stated = (
        "jax flax optax orbax-checkpoint grain tensorflow-datasets librosa transformers ml-collections pytest".split()
    )
    for package in stated:
        assert re.search(rf"^{package}==", text, re.MULTILINE), package
    assert not re.search(r"^(torch|tensorflow|tensorflow-cpu)==", text, re.MULTILINE)
    assert "protobuf==6.33.6" in text
    assert "beartype==0.22.9" in text


def test_the_pinned_ruff_is_the_one_in_setup():
    ruff = re.search(r"^ruff==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE).group(1)
    assert f'"ruff=={ruff}"' in (ROOT / "setup.py").read_text()


def test_every_package_that_is_imported_is_asked_for():
    from packaging.requirements import Requirement

    def folded(name):
        return name.replace("-", "_").lower()

    wanted = [Requirement(line) for line in importlib.metadata.requires("ssu_jax")]
    core = {folded(one.name) for one in wanted if not one.marker or one.marker.evaluate({"extra": ""})}
    extras = {
        extra: {folded(one.name) for one in wanted if one.marker and one.marker.evaluate({"extra": extra})}
        for extra in ("convert", "beam", "data")
    }
    own = dict.fromkeys(("conversion", "tables", "profiling", "weights"), extras["convert"])
    own |= {"preparation": extras["beam"], "data": extras["data"]}
    owners = importlib.metadata.packages_distributions()
    for path in (ROOT / "ssu_jax").rglob("*.py"):
        allowed = core | own.get(path.parts[-2], set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            else:
                continue
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"ssu_jax"}:
                found = {folded(owner) for owner in owners.get(name, [name])}
                assert found & allowed, f"{path.relative_to(ROOT)} imports {name}, which setup.py does not name for it"
