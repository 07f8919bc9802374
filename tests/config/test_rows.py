"""Rows of the paper's tables: their switches, and models that can be built from them."""

import pathlib
import runpy

import flax.traverse_util
import jax
import pytest

from ssu_jax import models
from ssu_jax.config import labels, rows, sizes
from ssu_jax.config.encoders import causal_lm, clip, pvt_v2, vggish
from ssu_jax.training import parts
from ssu_jax.types import UserError

CONFIGS = sorted((pathlib.Path(__file__).parents[2] / "configs").glob("*.py"))
# The first takes numbers of experts, the second has encoders alone, the others are T-VSL's.
NO_ROWS = ("moe_sweep.py", "pretrain.py", "trio.py", "tvsl.py", "tvsl_audioclip.py")
OF_THE_PAPER = [path for path in CONFIGS if path.name not in NO_ROWS]


def switches(config):
    model = config.model
    return config.losses.focal, model.mcm, model.rcc, model.mohe, model.seg_only, model.text_only


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ("baseline", (False, False, False, False, False, False)),
        ("focal", (True, False, False, False, False, False)),
        ("mcm", (True, True, False, False, False, False)),
        ("rcc", (True, True, True, False, False, False)),
        ("avuformer", (True, True, True, False, False, False)),
        ("mohe", (True, True, True, True, False, False)),
        ("ssu_s", (True, True, True, True, True, False)),
        ("ssu_d", (True, True, True, True, False, True)),
    ],
)
def test_the_ablation_is_cumulative(row, wanted):
    config = rows.with_row(sizes.nano(), row).validate()
    assert switches(config) == wanted
    assert config.name == ("nano" if row == "mohe" else f"nano:{row}")
    assert rows.row_of(config) == {"avuformer": "rcc"}.get(row, row)
    assert set(rows.ROWS) >= {row}


def test_the_whole_model_is_what_the_sizes_are():
    assert rows.with_row(sizes.nano(), "mohe") == sizes.nano()


def test_a_mixture_that_no_table_has_has_no_name():
    config = sizes.nano()
    config.model.mcm = False
    assert rows.row_of(config) == ""
    config.model.mohe = False  # RCC compares what MCM sees: without MCM it does nothing
    assert rows.row_of(config) == "focal"


def test_an_unknown_row_names_the_nearest():
    with pytest.raises(UserError, match="no row 'moeh' .* did you mean mohe"):
        rows.with_row(sizes.nano(), "moeh")


@pytest.mark.parametrize("path", OF_THE_PAPER, ids=lambda path: path.name)
def test_every_config_takes_every_row(path):
    get_config = runpy.run_path(str(path))["get_config"]
    for row in rows.ROWS:
        assert rows.row_of(get_config(row).validate()) in (row, "rcc")


@pytest.fixture
def small_encoders(monkeypatch):
    """Published encoders by name, a thousandth of their size."""
    monkeypatch.setitem(pvt_v2.VARIANTS, "b5", pvt_v2.PVTv2Config(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1),
                                                                  num_heads=(1, 1, 1, 1)))  # fmt: skip
    monkeypatch.setitem(vggish.VARIANTS, "torch", vggish.VGGishConfig(widths=(4, 4, 4, 4), hidden=8))
    towers = {"width": 8, "depth": 1, "num_heads": 1, "hidden": 8, "embedding_width": 8}
    monkeypatch.setitem(clip.VARIANTS, "vit_b_16", clip.CLIPConfig(vision=clip.CLIPVisionConfig(**towers),
                                                                   text=clip.CLIPTextConfig(**towers)))  # fmt: skip
    heads = {"num_heads": 1, "num_kv_heads": 1}
    monkeypatch.setitem(causal_lm.VARIANTS, "gpt2", causal_lm.CausalLMConfig(depth=1, width=8, hidden=8, **heads))


@pytest.mark.parametrize("row", rows.ROWS)
def test_every_row_of_the_paper_s_model_builds_with_what_it_freezes(row, small_encoders):
    config = rows.with_row(sizes.base(), row).validate()
    config.data.num_frames = 1
    config.model.width, config.model.pixel_width = 16, 16
    config.model.fusion_layers = config.model.text_layers = config.model.query_layers = 1
    model = models.build(config)
    shapes = jax.eval_shape(lambda: models.init(model, config, jax.random.key(0)))
    parts.check(shapes, config.train)
    names = set(flax.traverse_util.flatten_dict(shapes, sep="/"))

    def has(module):
        return any(name.startswith(module + "/") for name in names)

    on = rows.ROWS[row]
    assert has("mask_head") == (row != "ssu_d")
    assert has("text_decoder") == (row != "ssu_s")
    assert has("clip_vision") == ("mcm" in on and row not in ("ssu_s", "ssu_d"))
    assert has("clip_text") == ("rcc" in on and row not in ("ssu_s", "ssu_d"))
    assert has("text_decoder/lm") == ("mohe" in on and row != "ssu_s")
    _, frozen = parts.split(shapes, config.train.freeze)
    assert set(frozen) >= {"audio_encoder"}
    assert ("clip_vision" in frozen) == has("clip_vision")


def test_class_lists_are_the_paper_s():
    # Counted on the table of categories: nine strings, three percussion, two keyboards, eight winds.
    majors = list(labels.F_MUSIC.values())
    assert [majors.count(name) for name in ("string", "percussion", "keyboard", "wind")] == [9, 3, 2, 8]
    majors = list(labels.F_LIFESCENE.values())
    counts = {"human": 13, "vehicle": 13, "animal": 10, "sport": 2, "tool": 14, "nature": 3, "other": 6}
    assert {name: majors.count(name) for name in counts} == counts
    assert (len(labels.F_MUSIC_CLASSES), len(labels.F_LIFESCENE_CLASSES)) == (22, 61)
    assert not set(labels.F_MUSIC_CLASSES) & set(labels.F_LIFESCENE_CLASSES)


def test_class_lists_equal_the_transcription(shared):
    import csv

    with open(shared / "data/annotations/f_music_f_lifescene_classes.csv", newline="") as file:
        found = {(row["dataset"], row["group"].lower(), row["class"].lower()) for row in csv.DictReader(file)}
    ours = {("f-Music", major, name) for name, major in labels.F_MUSIC.items()}
    assert found == ours | {("f-Lifescene", major, name) for name, major in labels.F_LIFESCENE.items()}
