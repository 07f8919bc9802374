import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax import checkpoint
from ssu_jax.checkpoint import CheckpointStore, store
from ssu_jax.config import sizes
from ssu_jax.inference import export, loading
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.training import workdir
from ssu_jax.types import TrainState, UserError

MANIFEST = {"digest": "ab" * 32, "source": {"made by": "a test", "seed": 7}}


def random_params(config) -> dict:
    shapes, rng = loading.parameter_shapes(config), np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A working directory with two sealed steps of the tiny model; the first has the better score."""
    path, config = tmp_path_factory.mktemp("run"), sizes.tiny()
    config.data.dir, config.train.learning_rate, config.train.seed = "/some/place", 0.25, 3
    tokenizer = Tokenizer.train(["The red bell on the left is ringing."], config.model.vocab_size)
    companions = workdir.companions(config, tokenizer.to_json(), MANIFEST, published={})
    with workdir.Workdir(path) as place:
        place.write_start(companions)
    params = random_params(config)
    with CheckpointStore(path) as saving:
        saving.find_newest()
        for step, factor in ((1, 1.0), (2, 2.0)):
            ema = jax.tree.map(lambda leaf, factor=factor: jnp.asarray(leaf * factor), params)
            saving.save(step, TrainState(jnp.int32(step), {}, ema, {}, jnp.int32(0), jnp.int32(0)), companions)
            saving.wait()
            saving.record_score(step, -factor)
    return path, params


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "model"
    figures = out.parent / "metrics.json"
    figures.write_text(json.dumps(dict.fromkeys(export.FIGURES["ssuformer"], 0.5) | {"cider": None}))
    return export.export(run[0], out, metrics=figures)


@pytest.fixture
def copied(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "model")


def refusal(path) -> UserError:
    with pytest.raises(UserError) as caught:
        loading.load(path)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_working_directory_means_its_best_step(run):
    config, tokenizer, params = loading.load(run[0])
    assert config.name == "tiny"
    assert tokenizer.encode("The red bell", 8).tolist().count(3) == 0
    jax.tree.map(np.testing.assert_array_equal, params, run[1])


def test_a_sealed_step_is_itself(run):
    params = loading.load(run[0] / "checkpoints" / "00000002").params
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b * 2), params, run[1])


def test_a_damaged_best_step_gives_way_to_a_sound_one(run, tmp_path, capsys):
    path = shutil.copytree(run[0], tmp_path / "run")
    (path / "checkpoints" / "00000001" / "tokenizer.json").write_text("{}")
    params = loading.load(path).params
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b * 2), params, run[1])
    said = capsys.readouterr().err
    assert "00000001 refused: tokenizer.json" in said
    assert "00000002 is used instead" in said
    (path / "checkpoints" / "00000002" / "seal.json").unlink()
    assert refusal(path).exit_code == 79


def test_bfloat16_keeps_eight_bits_and_float32_all(run, exported, tmp_path):
    stored = loading.load(exported).params
    for a, b in zip(jax.tree.leaves(stored), jax.tree.leaves(run[1]), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b.astype(jnp.bfloat16).astype(np.float32))
    exact = loading.load(export.export(run[0], tmp_path / "exact", dtype="float32")).params
    jax.tree.map(np.testing.assert_array_equal, exact, run[1])


def test_the_folder_tells_how_the_model_was_made_and_names_no_place(exported):
    present = {path.name for path in exported.iterdir()}
    assert present == {"model.safetensors", "config.json", "tokenizer.json", "manifest.json", "LICENSE", "README.md"}
    assert "Apache License" in (exported / "LICENSE").read_text()
    card = (exported / "README.md").read_text()
    for word in ("--config.train.learning_rate=0.25", "--config.train.seed=3", MANIFEST["digest"], "| miou | 0.5 |"):
        assert word in card
    assert "cider" not in card
    made_by = json.loads((exported / "manifest.json").read_text())["made_by"]
    assert (made_by["step"], made_by["seed"], made_by["data_source"]["seed"]) == (1, 3, 7)
    assert not any(b"/some/place" in path.read_bytes() for path in exported.iterdir())


def test_an_export_of_an_export_keeps_its_origin(exported, tmp_path):
    again = export.export(exported, tmp_path / "again", dtype="float32")
    assert checkpoint.made_by(again) == checkpoint.made_by(exported)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("kind", ["flip", "cut", "delete"])
def test_a_damaged_folder_is_refused_by_file_name(copied, name, kind):
    content = bytearray((copied / name).read_bytes())
    # The manifest holds the digests of the others and none of its own: what breaks its form is found.
    middle = len(content) // 2 if name != "manifest.json" or kind == "cut" else 0
    if kind == "delete":
        (copied / name).unlink()
    else:
        content[middle] ^= 4
        (copied / name).write_bytes(content if kind == "flip" else content[:middle])
    error = refusal(copied)
    assert name in str(error)
    assert error.exit_code == 2


def test_another_schema_is_refused(copied, run, tmp_path):
    path = shutil.copytree(run[0], tmp_path / "run")
    for folder in (copied, path):
        tree = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(tree | {"schema_version": 99}))
        assert "schema_version is 99" in str(refusal(folder))


def test_another_model_size_is_refused_with_the_first_shapes(copied, run, tmp_path):
    path = shutil.copytree(run[0], tmp_path / "run")
    for folder in (copied, path):
        tree = json.loads((folder / "config.json").read_text())
        tree["model"]["vocab_size"] = 99
        (folder / "config.json").write_text(json.dumps(tree))
        error = str(refusal(folder))
        assert "another model size" in error
        assert "99" in error
        assert "160" in error


@pytest.mark.parametrize("name", ["nowhere", ".", "file"])
def test_what_is_no_checkpoint_is_named(tmp_path, name):
    (tmp_path / "file").write_text("x")
    assert str(tmp_path / name).rstrip("/.") in str(refusal(tmp_path / name))


def test_a_working_directory_without_steps_says_so(tmp_path):
    (tmp_path / store.FOLDER).mkdir()
    assert "no saved step yet" in str(refusal(tmp_path))


def test_an_export_overwrites_only_exports(run, exported, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        export.export(run[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    export.export(run[0], exported)


def test_figures_come_from_an_evaluation_or_not_at_all(run, tmp_path):
    (tmp_path / "no.json").write_text('{"loss": 1}')
    with pytest.raises(UserError, match="no.json"):
        export.export(run[0], tmp_path / "out", metrics=tmp_path / "no.json")
    assert not (tmp_path / "out").exists()
    assert "Not measured." in (export.export(run[0], tmp_path / "out") / "README.md").read_text()
