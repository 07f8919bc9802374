"""`ssu profile` from the command line."""

import json

import jax
import jax.numpy as jnp
import pytest

from ssu_jax import models
from ssu_jax.cli import main
from ssu_jax.profiling import report

CONFIG = """
from ssu_jax.config import sizes

def get_config():
    config = sizes.tiny()
    config.data.image_size, config.data.num_frames, config.data.max_text_tokens = 32, 2, 6
    config.model.seg_only = True
    return config
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    path = tmp_path / "small.py"
    path.write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: main.main(["profile", "--config", str(path), *arguments])


@pytest.fixture
def constant_weights(monkeypatch):
    """Drawing random weights takes longer to compile than the model."""

    drawn = models.init

    def init(model, config, key):
        shapes = jax.eval_shape(lambda: drawn(model, config, key))
        return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), shapes)

    monkeypatch.setattr(models, "init", init)


@pytest.mark.full
def test_everything_in_the_table_and_in_the_file(run, capsys, tmp_path, constant_weights):
    assert run("--train-step", "--repeats", "2", "--json", "out/profile.json") == 0
    printed, notes = capsys.readouterr()
    assert "tiny, here" in printed
    assert "RA-SSU (SSUFormer)" in printed
    assert notes.splitlines() == [
        "counting the FLOPs of the prediction ...",
        "counting the FLOPs of the training step ...",
        "compiling and running the prediction (cpu) ...",
        "compiling and running the training step (cpu) ...",
    ]
    result = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert set(result["parameters"]) == {"total", "trainable", "active", "by_module", "apart"}
    assert sum(result["parameters"]["by_module"].values()) == result["parameters"]["total"]
    for part in ("flops", "speed", "memory", "compile_seconds"):
        assert {"prediction", "training_step"} <= set(result[part])
    for name in ("prediction", "training_step"):
        speed = result["speed"][name]
        assert (speed["frames"], speed["repeats"]) == (2, 2)
        assert speed["frames_per_second"] == pytest.approx(2 / speed["seconds_per_sample"])
        # Weights, moments and average are among the arguments of a step, the weights among those of a prediction.
        copies = 1 if name == "prediction" else 4
        assert result["memory"][name]["arguments"] >= copies * 3.5 * result["parameters"]["total"]
        assert result["memory"]["process_peak"] > result["memory"][name]["peak"]
        assert result["compile_seconds"][name] > 0
    assert {"platform", "kind", "processor", "cores"} == set(result["device"])
    assert {"python", "ssu_jax", "jax"} <= set(result["versions"])


def test_parameters_alone_run_nothing(run, capsys, monkeypatch):
    for module, name in ((report, "costs"), (report.speed, "run"), (report.programs, "prediction")):
        monkeypatch.setattr(module, name, None)
    assert run("--only", "parameters", "--config.model.width=4096") == 0
    printed, notes = capsys.readouterr()
    assert "visual_encoder" in printed
    assert notes == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "parameters,time"], "--only: 'time' is none of parameters, flops, speed, memory"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--config.model.width=-1"], "model.width must be at least 8"),
        (["--only=parameters", "--config.train.freeze=('nothing',)"], "train.freeze"),
    ],
)
def test_mistakes_are_one_line(run, capsys, arguments, said):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("ssu profile: error: ")
    assert error.count("\n") == 1
    assert said in error
