"""What README, help texts and configs tell people to type is understood by the program."""

import importlib
import pathlib
import re
import shlex

import pytest

from ssu_jax.cli import main
from ssu_jax.preparation import synthetic

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every `ssu VERB ...` line of the README's shell blocks, the configs' docstrings and the verbs' examples."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    blocks += [path.read_text(encoding="utf-8").partition('"""\n\nfrom')[0] for path in (ROOT / "configs").glob("*.py")]
    blocks += [importlib.import_module(f"ssu_jax.cli.{verb.replace('-', '_')}").EPILOG for verb in main.VERBS]
    joined = [re.sub(r"\\\n\s*", "", block) for block in blocks]  # a backslash carries a command over to the next line
    lines = [line.partition("  #")[0].strip() for block in joined for line in block.splitlines()]
    return sorted({line for line in lines if line.startswith("ssu ")})


def test_there_is_an_example_of_every_verb():
    assert {line.split()[1] for line in commands()} == set(main.VERBS)


@pytest.mark.parametrize("command", commands())
def test_the_program_understands_its_examples(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    args = main._parse(shlex.split(command)[1:])
    assert callable(args.run)


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    synthetic.preview("my.mp4", "test", num_clips=1, seed=2024, plain=True)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21
    assert all(line.endswith("(96, 96)") for line in lines[:10])
    assert all("('flute', " in line and "('drum', " in line for line in lines[11:])


def test_every_file_the_readme_names_is_there():
    for name in re.findall(r"(?:\./)?((?:launch|configs|notebooks|benchmarks|docs)/[\w./]+\w)", README):
        assert (ROOT / name).exists(), name
