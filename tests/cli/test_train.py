"""The exit code of `ssu train` tells a cluster whether the run is done."""

import types

import pytest

from ssu_jax.cli import main
from ssu_jax.training import loop, processes


@pytest.mark.parametrize(
    ("step", "options", "code"), [(7, [], 0), (7, ["--stopped-code=75"], 75), (9, ["--stopped-code=75"], 0)]
)
def test_a_run_that_was_stopped_has_the_code_that_was_asked_for(step, options, code, monkeypatch, root):
    monkeypatch.chdir(root)
    monkeypatch.setattr(processes, "join", lambda *_: None)
    monkeypatch.setattr(loop, "train", lambda *_, **__: types.SimpleNamespace(step=step))
    line = ["train", "--config", "configs/nano.py", "--workdir", "runs/x", "--config.train.num_steps=9"]
    assert main.main([*line, "--no-compile-cache", *options]) == code


def test_an_exit_code_that_no_system_has_is_refused(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    assert main.main(["train", "--config", "configs/nano.py", "--workdir", "runs/x", "--stopped-code=300"]) == 2
    assert "--stopped-code" in capsys.readouterr().err
