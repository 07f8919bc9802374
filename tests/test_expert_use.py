"""Counts of experts by hand, prompt levels that add up to the router's logit, and the files of `--routing`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ssu_jax import checkpoint, expert_use, models
from ssu_jax.cli import main
from ssu_jax.config import sizes
from ssu_jax.config.model import MoEConfig
from ssu_jax.data import records
from ssu_jax.inference import loading
from ssu_jax.inference import routing as files
from ssu_jax.layers.moe.experts import MixtureOfExperts
from ssu_jax.models import decoding
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.types import Clip, SoundObject, UserError

CLASSES = ("bell", "drum")
SENTENCE = "The red bell on the left is ringing."


def test_words_are_counted_for_every_group_that_their_frame_is_in():
    """Two layers, two experts and padding (2); frames of two words: a bell, a bell and a drum, silence."""
    ids = np.array([[0, 1, 0, 0, 1, 2], [1, 1, 1, 0, 2, 2]])[..., None]
    lifts = np.arange(2 * 6 * 4, dtype=float).reshape(2, 6, 1, 4)
    groups = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 1]], bool)
    counts, sums = expert_use.counted(ids, lifts, groups, 2)
    np.testing.assert_array_equal(counts[0], [[3, 2], [3, 1], [2, 0], [0, 1]])
    np.testing.assert_array_equal(counts[1], [[1, 3], [1, 3], [1, 1], [0, 0]])
    np.testing.assert_array_equal(sums[0, 1], lifts[0, [1, 4], 0].sum(axis=0))
    np.testing.assert_array_equal(sums[1, 0], lifts[1, 3, 0])
    told = expert_use.as_dict(expert_use.ExpertUse(("all", "class/bell", "class/drum", "kind/silence"), counts, sums))
    first, second = told["layers"]
    assert first["load"] == [0.6, 0.4]
    assert first["max_load"] == pytest.approx(1.2)
    assert first["words"] == [5, 4, 2, 1]
    assert first["share"][1] == [0.75, 0.25]
    assert first["lift"][1] == [1.25, 0.625]
    assert second["lift"][3] == [None, None]  # no word in silence
    assert first["levels"]["token"] == pytest.approx([lifts[0, [0, 2, 3], 0, 0].mean(), lifts[0, [1, 4], 0, 0].mean()])


def test_seconds_are_told_apart_by_what_sounds_and_what_is_seen():
    """A bell seen; a bell seen and a drum off screen; a drum off screen; silence."""
    batch = models.example_batch(sizes.tiny())._replace(
        source_labels=np.array([[[1, 0], [1, 0], [0, 0], [0, 0]]], np.uint8),
        audible_labels=np.array([[[1, 0], [1, 1], [0, 1], [0, 0]]], np.uint8),
    )
    groups = expert_use.groups_of(batch)
    np.testing.assert_array_equal(groups[0], 1)
    np.testing.assert_array_equal(groups[1:5], np.eye(4))
    np.testing.assert_array_equal(groups[5:], [[1, 1, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("changes", [{}, {"top_k": 2, "two_step": True, "num_experts": 6}])
def test_the_levels_add_up_to_the_logit_over_its_mean(changes):
    config = MoEConfig(hidden=4, **changes)
    layer, keys = MixtureOfExperts(config, 3), jax.random.split(jax.random.key(0), 4)
    x, router_input, scene = (jax.random.normal(key, (10, width)) for key, width in zip(keys, (3, 12, 5), strict=False))
    mask = jnp.arange(10) < 8
    params = jax.jit(layer.init)(keys[3], x, router_input, mask, scene)

    @jax.jit
    def look(params):
        _, inside = layer.apply(params, x, router_input, mask, scene, mutable=["intermediates"])
        ids, inputs, rows = (inside["intermediates"][name][0] for name in ("experts", "router_input", "router_rows"))
        return ids, expert_use.lifted(ids, inputs, rows)

    ids, lifted = jax.tree.map(np.asarray, look(params))
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in params["params"].items()}
    keys = weights["prompts"] / np.linalg.norm(weights["prompts"], axis=1, keepdims=True)
    unit = np.asarray(router_input) / np.sqrt((np.asarray(router_input) ** 2).mean(axis=1, keepdims=True))
    logits = weights["scale"] * unit @ weights["query"] @ keys.T
    for token in range(8):
        np.testing.assert_allclose(
            lifted[token].sum(axis=1), logits[token][ids[token]] - logits[token].mean(), rtol=1e-4, atol=1e-5
        )
    assert (ids[8:] == config.num_experts).all()


def clip(number: int) -> Clip:
    """Four seconds of 32 x 32: a bell that rings in the first two, a drum off screen in the third."""
    masks = np.zeros((4, 32, 32), bool)
    masks[:, 8:20, 4:16] = True
    bell = SoundObject("bell", np.array([True, True, False, False]), True, masks)
    drum = SoundObject("drum", np.array([False, False, True, False]), False)
    frames = np.random.default_rng(number).integers(0, 255, (4, 32, 32, 3)).astype(np.uint8)
    captions = (SENTENCE, SENTENCE, "", "")
    return Clip(f"clip-{number}", frames, np.arange(4) + 0.5, np.zeros(64000, np.int16), 16000, np.ones(4, bool),
                captions, (bell, drum))  # fmt: skip


def write_model(folder, **changes) -> str:
    config = sizes.tiny()
    config.data.classes, config.model.text_layers = CLASSES, 2
    for name, value in changes.items():
        setattr(config.model, name, value)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), loading.parameter_shapes(config))
    tokenizer = Tokenizer.train([SENTENCE], 40)
    checkpoint.write_folder(folder, checkpoint.Model(config, tokenizer, params), "float32", {"step": 7})
    return str(folder)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("records")
    records.write_split(folder, "test", map(clip, range(3)), 1, classes=CLASSES, source={"made": "by hand"})
    return str(folder)


def test_the_program_draws_and_tells_which_experts_serve_what(directory, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(decoding, "make_describe", lambda model: _silent)  # only the routing is compiled
    options = [
        "--checkpoint",
        write_model(tmp_path / "model"),
        "--records",
        directory,
        "--out",
        str(tmp_path / "m.json"),
    ]
    assert main.main(["evaluate", "--no-compile-cache", *options, "--batch-size", "2", "--routing"]) == 0
    folder = tmp_path / "m-routing"
    assert {entry.name for entry in folder.iterdir()} == {"block_0.png", "block_1.png", "routing.json"}
    told = json.loads((folder / "routing.json").read_text())
    assert (told["split"], told["step"], told["num_experts"], told["num_clips"]) == ("test", 7, 4, 3)
    assert told["groups"] == ["all", *(f"kind/{kind}" for kind in expert_use.KINDS), "class/bell", "class/drum"]
    sentence = len(SENTENCE.replace(".", " .").split()) + 1  # and [EOS]; in silence [EOS] alone
    wanted = {"all": 2 * sentence + 2, "kind/seen sound": 2 * sentence, "kind/off-screen sound": 1, "kind/silence": 1,
              "kind/seen and off-screen sound": 0, "class/bell": 2 * sentence, "class/drum": 0}  # fmt: skip
    for layer in told["layers"]:
        assert dict(zip(told["groups"], layer["words"], strict=True)) == {name: 3 * n for name, n in wanted.items()}
        assert sum(layer["load"]) == pytest.approx(1, abs=1e-4)
        assert sum(layer["levels"]["region"][e] is not None for e in range(4)) == np.count_nonzero(layer["load"])
    assert min(Image.open(folder / "block_1.png").size) > 600
    printed = capsys.readouterr().out
    assert "block 0: busiest expert: " in printed
    assert f"routing in {folder}" in printed


def test_a_model_without_experts_is_refused_in_one_line_before_it_runs(directory, tmp_path, capsys):
    options = ["--checkpoint", write_model(tmp_path / "model", mohe=False), "--records", directory]
    assert main.main(["evaluate", *options, "--out", str(tmp_path / "m.json"), "--routing", str(tmp_path / "r")]) == 2
    error = capsys.readouterr().err
    assert "--routing shows experts, tiny has none to choose from (model.mohe is off): leave it out" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_one_expert_masks_alone_and_late_fusion_have_no_choice():
    alone, masks = sizes.nano(), sizes.nano()
    alone.model.moe.num_experts, masks.model.seg_only = 1, True
    reasons = {"model.moe.num_experts is 1": alone, "model.seg_only is set": masks,
               "family is late_fusion": sizes.late_fusion()}  # fmt: skip
    for reason, config in reasons.items():
        with pytest.raises(UserError, match=reason):
            expert_use.check(config)


def test_the_strongest_that_count_are_named():
    layer = {"load": [0.5, 0.5], "max_load": 1.0, "words": [100, 50, 4], "lift": [[1, 1], [1.5, 0.5], [2.0, 0.0]]}
    told = files.summary(["all", "class/bell", "class/drum"], layer, most=1)
    assert (
        told == "busiest expert: 1.00 times its even share; strongest: bell -> expert 0 (1.5)"
    )  # 4 words tell nothing


def _silent(params, frames, log_mel, frame_valid):
    return np.zeros(frames.shape[:-1], np.float32), np.zeros((*frame_valid.shape, 28), np.int32)
