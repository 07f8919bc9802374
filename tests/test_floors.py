"""The floors hold, and the check would see it if they did not."""

import pathlib
import shutil
import subprocess
import sys

import pytest

LINT = "import importlinter.cli; importlinter.cli.lint_imports_command()"


def lint_imports(directory: pathlib.Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", LINT, "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_floors_hold(root):
    result = lint_imports(root)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("types.py", "import ssu_jax.cli.main", "Floors"),
        ("metrics/planted.py", "import ssu_jax.losses", "Floors"),
        ("data/planted.py", "import jax", "Data, metrics and what lies under them touch no device"),
        ("training/planted.py", "import orbax.checkpoint", "The checkpoint room alone names Orbax"),
        ("training/planted.py", "import grain", "The data room alone names Grain"),
        ("models/planted.py", "import torch", "Neither torch nor TensorFlow nor transformers"),
    ],
)
def test_a_forbidden_import_is_refused(root, tmp_path, module, line, contract):
    shutil.copytree(root / "ssu_jax", tmp_path / "ssu_jax", ignore=shutil.ignore_patterns("__pycache__", "pretrained"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    with (tmp_path / "ssu_jax" / module).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert f"{contract} BROKEN" in result.stdout
