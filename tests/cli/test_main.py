"""The frame of the program: verbs, common options, configuration, errors and exit codes."""

import errno
import os
import subprocess
import sys

import pytest

from ssu_jax.cli import compile_cache, main, train
from ssu_jax.types import UserError


@pytest.fixture
def run_train(monkeypatch, root):
    """Runs `ssu train --config configs/nano.py ARGUMENTS` with a stand-in for the training; returns (code, args)."""
    seen = []
    monkeypatch.setattr(train, "run", lambda args: seen.append(args) or 0)

    def run(*arguments):
        seen.clear()
        code = main.main(["train", "--workdir", "w", "--config", str(root / "configs/nano.py"), *arguments])
        return code, (seen[0] if seen else None)

    return run


@pytest.mark.parametrize("verb", main.VERBS)
def test_every_verb_has_help_with_an_example_and_the_common_options(verb, capsys):
    assert main.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"example:\n  ssu {verb}" in out
    assert {"--seed", "--verbose", "--no-compile-cache"} <= set(out.replace("[", " ").replace("]", " ").split())


def test_help_of_the_program_lists_every_verb(capsys):
    assert main.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n    {verb}" in out for verb in main.VERBS)


def test_no_arguments_shows_the_help_and_counts_as_a_mistake(capsys):
    assert main.main([]) == 2
    assert "ssu predict my.mp4" in capsys.readouterr().out


def test_version(capsys):
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("ssu_jax 0.")


def test_the_console_program_is_installed():
    program = os.path.join(os.path.dirname(sys.executable), "ssu")
    result = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("ssu_jax ")


def test_overrides_reach_the_configuration_by_type(run_train):
    code, args = run_train(
        "--config.train.num_steps=7",
        "--config.train.learning_rate",
        "2e-4",
        "--config.data.dir=some where",
        "--noconfig.model.mcm",
        "--config.model.rcc=false",
        "--config.model.visual.widths=(1,2,3,4)",
    )
    assert code == 0
    config = args.config
    assert (config.train.num_steps, config.train.learning_rate, config.data.dir) == (7, 2e-4, "some where")
    assert (config.model.mcm, config.model.rcc, config.model.visual.widths) == (False, False, (1, 2, 3, 4))
    assert args.workdir == "w"


def test_defaults_stay_untouched_between_runs(run_train):
    run_train("--config.train.num_steps=7")
    _, args = run_train()
    assert args.config.train.num_steps != 7
    assert (args.verbose, args.compile_cache, args.seed) == (False, True, 0)


def test_a_row_of_the_tables_stands_behind_a_colon(monkeypatch, root):
    seen = []
    monkeypatch.setattr(train, "run", lambda args: seen.append(args.config) or 0)
    path = f"{root / 'configs/nano.py'}:mcm"
    assert main.main(["train", "--workdir", "w", "--config", path, "--config.train.num_steps=7"]) == 0
    assert main.main(["train", "--workdir", "w", f"--config={path}", "--config.model.rcc=True"]) == 0
    first, second = seen
    assert (first.name, first.model.mcm, first.model.rcc, first.train.num_steps) == ("nano:mcm", True, False, 7)
    assert (second.model.mcm, second.model.rcc, second.model.mohe) == (True, True, False)


@pytest.mark.parametrize(
    ("text", "row", "said"),
    [
        (None, "mcmm", "no row 'mcmm' in the tables: did you mean mcm? Rows are baseline, focal"),
        (None, "", "no row ''"),
        (
            "def get_config():\n    return 1\n",
            "mcm",
            "{path}:mcm: get_config() takes 0 positional arguments but 1 was given",
        ),
        ("def get_config(row):\n    return 1 / 0\n", "mcm", "{path}, line 2: ZeroDivisionError"),
    ],
)
def test_a_wrong_row_is_one_line(root, tmp_path, capsys, text, row, said):
    path = root / "configs/nano.py"
    if text:
        path = tmp_path / "other.py"
        path.write_text(text)
    assert main.main(["train", "--workdir", str(tmp_path), "--config", f"{path}:{row}"]) == 2
    error = capsys.readouterr().err
    assert said.format(path=path) in error
    assert error.count("\n") == 1


def test_names_of_modules_are_given_one_by_one(run_train):
    _, args = run_train("--config.train.freeze=clip_vision", "--config.train.freeze=*/bias")
    assert args.config.train.freeze == ("clip_vision", "*/bias")
    _, args = run_train("--config.train.freeze=()")
    assert args.config.train.freeze == ()


def test_seed_reaches_the_configuration_and_back(run_train):
    assert run_train("--seed", "5")[1].config.train.seed == 5
    assert run_train("--config.train.seed=6")[1].seed == 6
    assert run_train("--config.train.seed=6", "--seed=6")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config.train.num_step=7"], "--config.train.num_step: no such field (did you mean train.num_steps?)"),
        (["--config.model.mmc=1"], "did you mean model.mcm?"),
        (["--config.trian.seed=1"], "did you mean train.seed?"),
        (["--config.train.seed.deeper=1"], "--config.train.seed.deeper: no such field"),
        (["--config.train=1"], "--config.train is a section: set one of its fields, train.num_steps"),
        (["--config.train.seed=x"], "--config.train.seed=x: invalid literal for int()"),
        (["--config.train.seed=1.5"], "--config.train.seed=1.5: invalid literal for int()"),
        (["--config.train.seed"], "Missing value for flag --config.train.seed"),
        (["--config.model.mcm=maybe"], "--config.model.mcm=maybe"),
        (["--config.train.learning_rate=nan"], "train.learning_rate must be finite, got nan"),
        (["--config.train.learning_rate=inf"], "train.learning_rate must be finite, got inf"),
        (["--config.train.batch_size=0"], "train.batch_size must be at least 1, got 0"),
        (["--config.model.visual.widths=(1,2,'a',4)"], "model.visual.widths must be a tuple of int"),
        (["--config.model.visual.widths=(0,2,3,4)"], "model.visual.widths must be at least 1"),
        (["--config.model.dtype=float16"], "model.dtype must be one of float32, bfloat16, got 'float16'"),
        (["--config.schema_version=99"], "schema_version is 99"),
        (["--seed=1", "--config.train.seed=2"], "--seed 1 and --config.train.seed=2 differ"),
        (["--seed=-1"], "argument --seed: wanted 0 to"),
        (["--wrokdir=x"], "unknown argument --wrokdir=x (did you mean --workdir?)"),
        (["stray"], "unknown argument stray"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(run_train, capsys, arguments, said):
    code, args = run_train(*arguments)
    assert (code, args) == (2, None)
    error = capsys.readouterr().err
    assert error.startswith("ssu train: error: ")
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such readable file; wanted a Python file with get_config()"),
        ("x = (", "line 1: '(' was never closed"),
        ("x = 1", "no function get_config()"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("def get_config():\n    return int('x')\n", "line 2: ValueError: invalid literal"),
        ("def get_config():\n    return {'a': 1}\n", "get_config() must return a ssu_jax.Config, got {'a': 1}"),
        ("import no_such_package\n", "line 1: ModuleNotFoundError"),
    ],
)
def test_a_bad_config_file_is_one_line_that_names_it(tmp_path, capsys, text, said):
    path = tmp_path / "broken.py"
    if text is not None:
        path.write_text(text)
    assert main.main(["train", "--workdir", str(tmp_path), "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--workdir", "w"], "--config is missing"),
        (["trian"], "'trian' is no verb (did you mean train?)"),
        (["--seed", "1", "train"], "'--seed' is no verb"),
        (["train", "--config", "configs/nano.py"], "the following arguments are required: --workdir"),
    ],
)
def test_a_mistaken_command_line(root, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(root)
    assert main.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("wanted a, got b:\n do c"), 2, "ssu train: error: wanted a, got b: do c\n"),
        (UserError("one record is damaged", exit_code=1), 1, "ssu train: error: one record is damaged\n"),
        (UserError("no usable checkpoint", exit_code=79), 79, "ssu train: error: no usable checkpoint\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 2, "No space left on device: out/x"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "Permission denied: out"),
        (OSError(errno.EIO, "Input/output error"), 70, "unexpected OSError"),
        (RuntimeError("boom"), 70, "unexpected RuntimeError: boom (a defect: --verbose shows where it arose)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
@pytest.mark.parametrize("verbose", [False, True])
def test_exit_codes_and_traceback_on_demand(run_train, monkeypatch, capsys, error, code, said, verbose):
    def fail(_):
        raise error

    monkeypatch.setattr(train, "run", fail)
    assert run_train(*["--verbose"] * verbose)[0] == code
    printed = capsys.readouterr().err
    assert said in printed
    assert ("Traceback" in printed) == verbose


def test_the_exit_code_of_the_verb_is_the_program_s(monkeypatch, run_train):
    monkeypatch.setattr(train, "run", lambda args: 1)
    assert run_train()[0] == 1


def test_compile_cache_lies_in_the_user_s_cache_folder(run_train, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "to be restored")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    run_train("--no-compile-cache")
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    run_train()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"].startswith(str(tmp_path / "ssu_jax" / "compiled-"))


def test_compile_cache_reaches_a_jax_that_is_loaded_already(monkeypatch, tmp_path):
    import jax

    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))  # the user's own folder is kept
    try:
        assert compile_cache.enable() == tmp_path
        assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
