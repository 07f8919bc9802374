"""`ssu evaluate` of a T-VSL checkpoint: the table, the files that it writes and reads again, and what it refuses."""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest

from ssu_jax import checkpoint
from ssu_jax.cli import main
from ssu_jax.config import sizes
from ssu_jax.data import records
from ssu_jax.inference import loading, scoring
from ssu_jax.models.tvsl import locating
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.types import Clip, SoundObject

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "training"))
import toy_encoders  # noqa: E402

CLASSES = ("bell", "drum", "siren")
SIZE, T = 32, 2


@pytest.fixture(scope="module", autouse=True)
def small_encoders():
    with toy_encoders.in_place():
        yield


def solo_clip(number: int) -> Clip:
    """One class sounds all the time, a square on the left; the classes take turns."""
    rng, name = np.random.default_rng(number), CLASSES[number % 3]
    mask = np.zeros((T, SIZE, SIZE), bool)
    mask[:, 8:24, 4:20] = True
    sound = rng.integers(-9000, 9000, T * 16000).astype(np.int16)
    frames = rng.integers(0, 255, (T, SIZE, SIZE, 3)).astype(np.uint8)
    item = SoundObject(name, np.ones(T, bool), True, mask)
    return Clip(f"{number:03d}", frames, np.arange(T) + 0.5, sound, 16000, np.ones(T, bool), ("",) * T, (item,),
                "synthetic", "music", name)  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    records.write_split(folder, "test", map(solo_clip, range(6)), 1, classes=CLASSES, source={"made by": "a test"})
    return str(folder)


def write_model(folder: pathlib.Path, config) -> str:
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(scale=0.3, size=leaf.shape).astype(np.float32), loading.parameter_shapes(config)
    )
    made_by = {"step": 7, "published_weights": {"trio, made from": "0" * 64}}
    checkpoint.write_folder(folder, checkpoint.Model(config, Tokenizer.train(CLASSES, 64), params), "float32", made_by)
    return str(folder)


def tvsl(mode: str = "corrected"):
    config, small = sizes.tvsl(), sizes.tiny()
    config.model, config.data.image_size, config.data.classes = small.model, SIZE, CLASSES
    config.tvsl.mode, config.tvsl.width = mode, 8
    return config.validate()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    described = sizes.tiny()
    described.data.classes = CLASSES
    return {"corrected": write_model(folder / "corrected", tvsl()),
            "released": write_model(folder / "released", tvsl("released")),
            "ssuformer": write_model(folder / "ssuformer", described)}  # fmt: skip


def evaluate(*arguments) -> int:
    return main.main(["evaluate", "--no-compile-cache", "--batch-size", "4", *map(str, arguments)])


def figures(printed: str) -> pathlib.Path:
    return pathlib.Path(printed.partition("figures in ")[2].partition("\n")[0])


def test_mixtures_are_scored_printed_and_compared(models, directory, capsys):
    assert evaluate("--checkpoint", models["corrected"], "--records", directory) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    place = figures(printed.out)
    digest = records.RecordSource(directory, "test").digest
    assert place == pathlib.Path(models["corrected"]) / f"localization-{digest[:12]}-test-2-sources.json"
    found = json.loads(place.read_text())
    assert (found["num_mixtures"], found["num_sources"], found["sources_each"]) == (6, 12, 2)
    assert (found["family"], found["mode"], found["step"], found["dataset"]) == ("tvsl", "corrected", 7, "synthetic")
    assert 0.0 < found["auc"] < 1.0
    lines = printed.out.splitlines()
    assert lines[0].startswith("test: 6 mixtures of 2, 12 sources with a region, mode corrected; records")
    row = next(line for line in lines if line.startswith("mean IoU"))
    assert float(row.split()[-1]) == pytest.approx(found["iou"], abs=5e-4)
    assert {line.rsplit(maxsplit=1)[0].strip() for line in lines if line.startswith("class ")} == {
        f"class {name}" for name in CLASSES
    }
    assert "the weights of AudioCLIP come from a file that is none of the published ones" in printed.out
    for options in (["--table", "tvsl"], []):
        assert evaluate("--metrics", place, *options) == 0
        table = capsys.readouterr().out
        ours = next(line for line in table.splitlines() if line.startswith("built-in world, 2 sources"))
        assert f"{100 * found['ciou@0.3']:.1f}  (tvsl, corrected, step 7, 6 mixtures)" in ours
    assert evaluate("--metrics", place, "--table", "ssuformer") == 0
    assert "tvsl" not in capsys.readouterr().out


@pytest.fixture
def guessing(monkeypatch):
    """In the model's place, since there is nothing to compile then: heat by chance."""

    def locate(params, pictures, sound, classes):
        rng = np.random.default_rng(len(pictures))
        heat = rng.random((*classes.shape, 8, pictures.shape[2] // 4)).astype(np.float32)
        return heat, rng.random((len(pictures), len(CLASSES)))

    monkeypatch.setattr(locating, "make_locate", lambda model: locate)


def test_what_is_mixed_is_in_the_name_and_in_the_figures(guessing, models, directory, tmp_path, capsys):
    options = ["--checkpoint", models["corrected"], "--records", directory]
    names, found = [], []
    for more in (
        ["--sources", 3, "--num-clips", 2],
        ["--classes", "bell, siren"],
        ["--as-it-is"],
        ["--threshold", 0.6],
    ):
        assert evaluate(*options, *more) == 0
        names.append(figures(capsys.readouterr().out).name.partition("-test-")[2])
        found.append(json.loads((pathlib.Path(models["corrected"]) / _named(models, names[-1])).read_text()))
    three, two_classes, alone, cut = found
    assert names[0] == "3-sources-first2.json"
    assert names[1].startswith("2-sources-of-")
    assert names[2:] == ["1-source-as-it-is.json", "2-sources-cut-0.6.json"]
    assert (three["num_mixtures"], three["num_sources"], three["source/2/ciou@0.3"] is None) == (2, 6, False)
    assert two_classes["only_classes"] == "bell,siren"
    assert not any(name.startswith("class/drum") for name in two_classes)
    assert (alone["num_mixtures"], alone["num_sources"], alone["as_it_is"]) == (6, 6, True)
    assert cut["threshold"] == 0.6
    assert evaluate(*options, "--sources", 2, "--as-it-is", "--out", tmp_path / "none.json", "--table", "tvsl") == 0
    none = json.loads((tmp_path / "none.json").read_text())
    assert (none["num_mixtures"], none["ciou@0.3"]) == (0, None), "no record has two sources"
    assert "test: 0 records as they are" in capsys.readouterr().out


def _named(models, ending: str) -> str:
    (found,) = (one.name for one in pathlib.Path(models["corrected"]).iterdir() if one.name.endswith(f"-test-{ending}"))
    return found


def test_the_released_mode_is_named_and_has_a_threshold_of_its_own(guessing, models, directory, tmp_path, capsys):
    options = ["--checkpoint", models["released"], "--records", directory, "--out", tmp_path / "m.json"]
    assert evaluate(*options, "--num-clips", 2) == 0
    printed = capsys.readouterr().out
    assert "mode released" in printed
    assert "mean overlap of maps cut at 0.3, whatever t" in printed
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["ciou@0.1"] == found["ciou@0.5"] == found["iou"]


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("corrected", ["--protocol", "avsbench"], "--protocol avsbench is of SSUFormer's masks"),
        ("corrected", ["--classes", "bell,cat"], "--classes names 'cat'"),
        ("corrected", ["--sources", "4"], "4 sources of different classes were asked for, of 3 classes"),
        ("corrected", ["--sources", "0"], "0 sources of different classes were asked for"),
        ("corrected", ["--sources", "2", "--classes", "bell"], "2 sources of different classes were asked for, of 1"),
        ("corrected", ["--threshold", "1.5"], "threshold"),
        ("corrected", ["--split", "val"], "no split 'val'"),
        ("corrected", ["--routing"], "config.family is tvsl"),
        ("corrected", ["--model", "ssuformer"], "holds family tvsl: leave --model out"),
        ("released", ["--threshold", "0.5"], "--threshold is of mode corrected"),
        ("ssuformer", ["--model", "tvsl"], "holds family ssuformer: leave --model out"),
        ("ssuformer", ["--sources", "2"], "--sources, --classes, --as-it-is and --threshold are for T-VSL"),
        ("ssuformer", ["--threshold", "0"], "--sources, --classes, --as-it-is and --threshold are for T-VSL"),
    ],
)
def test_refusals(models, directory, tmp_path, capsys, model, options, said):
    out = tmp_path / "m.json"
    assert evaluate("--checkpoint", models[model], "--records", directory, "--out", out, *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_figures_of_a_model_that_ships_lie_beside_it(tmp_path, monkeypatch):
    """A folder of the name "shipped:tvsl" is made nowhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "parameter_shapes", None)  # its encoders are not the small ones of these tests
    model, folder, _ = scoring._checkpoint("shipped:tvsl", "tvsl")
    assert model[0].family == "tvsl"
    assert folder == checkpoint.locate("shipped:tvsl")
    assert not list(tmp_path.iterdir())
