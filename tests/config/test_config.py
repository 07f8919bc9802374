"""The tree of options: checked once, stored as JSON, refused by name when it does not fit."""

import dataclasses
import json

import pytest

from ssu_jax.config import SCHEMA_VERSION, Config, sizes
from ssu_jax.config.options import describe
from ssu_jax.types import UserError


def changed(name: str, value) -> Config:
    config = sizes.nano()
    *sections, field = name.split(".")
    holder = config
    for section in sections:
        holder = getattr(holder, section)
    assert hasattr(holder, field)
    object.__setattr__(holder, field, value)
    return config


@pytest.mark.parametrize("size", [sizes.nano, sizes.tiny])
def test_named_sizes_are_valid_and_survive_json(size):
    config = size().validate()
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_every_option_says_what_it_means():
    rows = describe(Config())
    assert len(rows) > 60
    assert all(meaning for _, _, meaning in rows)
    assert ("train.seed", 0) in [(name, default) for name, default, _ in rows]


def test_defaults_are_not_shared_between_trees():
    first, second = Config(), Config()
    first.train.seed = 5
    assert second.train.seed == 0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("train.learning_rate", float("nan"), "train.learning_rate must be finite, got nan"),
        ("train.learning_rate", float("-inf"), "must be finite"),
        ("train.num_steps", 0, "train.num_steps must be at least 1, got 0"),
        ("train.seed", -1, "train.seed must be at least 0"),
        ("train.num_steps", 2.5, "train.num_steps must be of type int, got 2.5"),
        ("train.num_steps", True, "train.num_steps must be of type int, got True"),
        ("model.mcm", 1, "model.mcm must be of type bool, got 1"),
        ("data.dir", 3, "data.dir must be of type str, got 3"),
        ("data.classes", ("bell", 3), "data.classes must be a tuple of str"),
        ("data.classes", (), "data.classes must be a tuple of str"),
        ("data.classes", ("bell", "bell"), "data.classes names a class twice"),
        ("data.image_size", 100, "data.image_size must be a multiple of 32, got 100"),
        ("model.width", 130, "model.width (130) must be a multiple of model.num_heads (4)"),
        ("model.visual.widths", (8, 8), "must hold 4 numbers each"),
        ("model.visual.widths", (8, 8, 0, 8), "model.visual.widths must be at least 1"),
        ("model.moe.top_k", 5, "model.moe.top_k (5) is more than the experts that a token can reach (4)"),
        ("model.moe.dispatch", "magic", "model.moe.dispatch must be one of gather, einsum, blocks, ragged, dense"),
        ("train.grad_accumulation", 3, "must be a multiple of train.grad_accumulation (3)"),
        ("schema_version", SCHEMA_VERSION + 1, f"this version of ssu_jax reads {SCHEMA_VERSION}"),
    ],
)
def test_what_does_not_fit_is_named(name, value, said):
    with pytest.raises(UserError) as caught:
        changed(name, value).validate()
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("section", "unknown", "known"),
    [
        ("visual", "b9", "b0, b1, b2, b2_linear, b3, b4, b5, b0_authors"),
        ("audio", "keras", "torch, google"),
        ("clip", "rn50", "vit_b_32, vit_b_16, vit_l_14, vit_l_14_336"),
    ],
)
def test_sizes_of_published_encoders_are_known_by_name(section, unknown, known):
    config = sizes.base().validate()
    getattr(config.model, section).variant = unknown
    with pytest.raises(UserError) as caught:
        config.validate()
    assert f"model.{section}.variant must be one of {known}" in str(caught.value)
    assert f"got {unknown!r}" in str(caught.value)
    own = changed(f"model.{section}.variant", unknown)  # nano has encoders of its own, and asks for none
    assert own.validate() is own


@pytest.mark.parametrize("variant", ["b0_authors", "b2_linear", "b5_authors"])
def test_authors_layouts_may_be_chosen(variant):
    config = sizes.base()
    config.model.visual.variant = variant
    assert config.validate() is config


def test_groups_must_divide_the_experts_and_hold_enough_of_them():
    config = changed("model.moe.two_step", True)
    assert config.validate() is config
    config.model.moe.num_groups = 3
    with pytest.raises(UserError, match="must be a multiple of model.moe.num_groups"):
        config.validate()
    config.model.moe.num_groups, config.model.moe.top_k = 4, 2
    with pytest.raises(UserError, match="a token can reach"):
        config.validate()


def test_a_whole_number_will_do_for_a_float():
    assert changed("train.clip_norm", 1).validate().train.clip_norm == 1


def test_all_faults_are_told_at_once():
    config = changed("train.num_steps", 0)
    config.eval.batch_size = 0
    with pytest.raises(UserError, match=r"train.num_steps.*eval.batch_size"):
        config.validate()


def test_both_halves_switched_off():
    config = changed("model.seg_only", True)
    config.model.text_only = True
    with pytest.raises(UserError, match="choose one"):
        config.validate()


def test_pre_training_contrasts_two_clips_at_least():
    config = changed("train.batch_size", 4)
    config.family, config.train.grad_accumulation = "pretraining", 2
    assert config.validate() is config
    config.train.grad_accumulation = 4
    with pytest.raises(UserError, match=r"train.batch_size \(4\) must be at least 2 x train.grad_accumulation \(4\)"):
        config.validate()
    config.family = "ssuformer"
    assert config.validate() is config


def test_foreign_trees_are_refused():
    tree = Config().to_dict()
    with pytest.raises(UserError, match="unknown field 'colour'"):
        Config.from_dict({**tree, "colour": "red"})
    with pytest.raises(UserError, match="schema_version is None"):
        Config.from_dict({})
    with pytest.raises(UserError, match="schema_version is 0"):
        Config.from_dict({**tree, "schema_version": 0})


def test_a_field_of_every_section_is_an_option():
    def walk(tree):
        for field in dataclasses.fields(tree):
            value = getattr(tree, field.name)
            if dataclasses.is_dataclass(value):
                walk(value)
            else:
                assert "doc" in field.metadata, f"{type(tree).__name__}.{field.name} is no option()"

    walk(Config())
