"""Parameters by name: what a pattern means, how deep a block lies, who learns at which rate."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.config import TrainConfig
from ssu_jax.training import optimizer, parts
from ssu_jax.types import UserError

TREE = {
    "visual_encoder": {
        "stage_1": {"patch_embedding": {"kernel": jnp.ones((2, 2))}, "block_0": {"kernel": jnp.ones((2, 2))}},
        "stage_2": {"block_0": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "norm": {"scale": jnp.ones(2)}},
    },
    "clip_vision": {"block_0": {"kernel": jnp.ones((2, 2))}},
    "mask_head": {"kernel": jnp.ones((2, 1))},
    "scale": jnp.ones(()),
}
VISUAL = [
    "visual_encoder/stage_1/patch_embedding/kernel",
    "visual_encoder/stage_1/block_0/kernel",
    "visual_encoder/stage_2/block_0/kernel",
    "visual_encoder/stage_2/block_0/bias",
    "visual_encoder/stage_2/norm/scale",
]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("visual_encoder", VISUAL),
        ("visual_encoder/*", VISUAL),
        ("visual_encoder/stage_1", VISUAL[:2]),
        ("*/block_0", [*VISUAL[1:4], "clip_vision/block_0/kernel"]),
        ("*/bias", [VISUAL[3]]),
        ("visual_encoder/stage_[12]/norm", [VISUAL[4]]),
        ("mask_head/kernel", ["mask_head/kernel"]),
        ("scale", ["scale"]),  # a whole name, not any name that ends so
        ("visual", []),
        ("kernel", []),
        ("VISUAL_ENCODER", []),
    ],
)
def test_a_pattern_names_a_module_with_all_below_it_or_whole_names(pattern, wanted):
    assert {name for name in parts.flat(TREE) if parts.is_named(name, [pattern])} == set(wanted)


def test_split_and_merge_are_inverse_and_leave_no_empty_modules():
    learned, frozen = parts.split(TREE, ("visual_encoder", "scale"))
    assert set(learned) == {"clip_vision", "mask_head"}
    assert set(frozen) == {"visual_encoder", "scale"}
    assert parts.merge(learned, frozen) == TREE
    assert parts.split(TREE, ()) == (TREE, {})
    assert parts.merge(TREE, {}) is TREE


def test_of_two_trees_the_last_wins():
    assert parts.merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}) == {"a": {"b": 1, "c": 3}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"freeze": ("clip_vison",)}, "train.freeze names 'clip_vison', which the model does not have: "
                                      "did you mean clip_vision?"),
        ({"freeze": ("visual_encoder", "visual_encoder/stage_3/*")}, "did you mean visual_encoder/stage_"),
        ({"freeze": ("*",)}, "leaves nothing that learns"),
        ({"backbones": ("visual_encodr",), "layer_decay": 0.5}, "train.backbones names 'visual_encodr', which the "
                                                                "model does not have: did you mean visual_encoder?"),
    ],
)  # fmt: skip
def test_a_name_that_means_nothing_is_told_with_the_nearest(options, said):
    with pytest.raises(UserError) as caught:
        parts.check(TREE, TrainConfig(**options))
    assert said in str(caught.value)


def test_defaults_fit_models_with_and_without_backbones():
    parts.check(TREE, TrainConfig())
    parts.check({"mask_head": TREE["mask_head"]}, TrainConfig())
    parts.check(TREE, TrainConfig(backbone_learning_rate=0.1, freeze=("clip_vision",)))


def test_a_backbone_that_a_switch_takes_out_may_stay_named():
    parts.check(TREE, TrainConfig(freeze=("clip_text/*", "text_decoder/lm/model/block_0", "audio_encoder/vggish")))
    with pytest.raises(UserError, match="clip_vision/blok_0"):  # this one is there
        parts.check(TREE, TrainConfig(freeze=("clip_vision/blok_0",)))


@pytest.mark.parametrize(
    "depths",
    [
        # PVT-v2: two stages of two blocks each.
        {
            "stage_1/embedding/projection/kernel": 3,
            "stage_1/patch_embedding/norm/scale": 3,
            "stage_1/block_0/norm_1/scale": 3,
            "stage_1/block_1/mlp/fc1/kernel": 2,
            "stage_1/norm/scale": 2,
            "stage_2/embedding/projection/kernel": 1,
            "stage_2/block_0/attention/query/kernel": 1,
            "stage_2/block_1/attention/query/kernel": 0,
            "stage_2/norm/bias": 0,
        },
        # A vision transformer: what stands before the first block is one deeper than it.
        {
            "class_token": 4,
            "patch/kernel": 4,
            "positions": 4,
            "pre_norm/scale": 4,
            "block_0/norm_1/scale": 3,
            "block_1/norm_1/scale": 2,
            "block_2/norm_1/scale": 1,
            "block_3/attention/out/bias": 0,
            "post_norm/scale": 0,
            "projection/kernel": 0,
        },
        # Numbers are numbers: 10 lies above 9.
        {"block_9/kernel": 1, "block_10/kernel": 0},
        # Our own pyramid joins both numbers in one name.
        {"stem/kernel": 3, "stage_0_block_0/kernel": 2, "stage_1_block_0/kernel": 1, "stage_1_block_1/bias": 0},
        # Nothing is numbered: all at the full rate.
        {"stage_1_conv_1/kernel": 0, "hidden_1/kernel": 0, "embedding/bias": 0},
    ],
)
def test_depth_counts_the_blocks_above(depths):
    names = [f"visual_encoder/{name}" for name in depths]
    assert parts.blocks_above(names) == list(depths.values())


def test_rates_of_groups_by_hand():
    config = TrainConfig(
        learning_rate=0.1, warmup_steps=0, num_steps=10, backbone_learning_rate=0.5, layer_decay=0.8,
        freeze_steps=3, backbones=("visual_encoder", "clip_vision", "absent"),
    )  # fmt: skip
    for step in (2, 3):
        rate = float(optimizer.learning_rate(config, step))
        rates = {name: float(value) for name, value in parts.flat(optimizer.learning_rates(config, TREE, step)).items()}
        backbone = 0.5 * rate * (step >= 3)
        wanted = {
            VISUAL[0]: backbone * 0.8,
            VISUAL[1]: backbone * 0.8,
            VISUAL[2]: backbone,
            VISUAL[3]: backbone,
            VISUAL[4]: backbone,
            "clip_vision/block_0/kernel": backbone,
            "mask_head/kernel": rate,
            "scale": rate,
        }
        assert rates == pytest.approx(wanted, rel=1e-6)


def test_the_first_of_two_patterns_counts():
    config = TrainConfig(backbones=("visual_encoder/stage_2", "visual_encoder"), layer_decay=0.5)
    factors = parts.rate_factors(TREE, config)
    # Each pattern is an encoder of its own: the last block of each has the full rate.
    assert [factors[name] for name in VISUAL] == [1, 1, 1, 1, 1]
    np.testing.assert_equal(set(factors), set(VISUAL))
