"""Counts of parameters: against hand-made trees, against the weights that exist, and against memory."""

import types

import pytest

from ssu_jax.config import sizes
from ssu_jax.inference import loading
from ssu_jax.profiling import parameters
from ssu_jax.training import parts


def leaves(**numbers):
    return {name: types.SimpleNamespace(size=size) for name, size in numbers.items()}


LEAVES = {
    "visual_encoder/stem/kernel": 100,
    "visual_encoder/stem/bias": 10,
    "clip_vision/block_0/kernel": 50,
    "clip_text/block_0/kernel": 40,
    "text_decoder/experts_0/experts/expand_kernel": 800,
    "text_decoder/experts_0/experts/expand_bias": 80,
    "text_decoder/experts_0/experts/contract_kernel": 800,
    "text_decoder/experts_0/experts/contract_bias": 8,
    "text_decoder/experts_0/experts/prompts": 16,
    "text_decoder/lm/model/embed": 500,
    "text_decoder/lm/adapter/kernel": 5,
    "text_decoder/gate/kernel": 3,
}


@pytest.fixture
def config():
    made = sizes.tiny()
    made.model.moe.num_experts, made.model.moe.top_k = 8, 1
    return made


def test_a_hand_made_model(config):
    config.train.freeze = ("clip_vision", "*/stem/bias", "text_decoder/lm/model/*")
    found = parameters.count_of(leaves(**LEAVES), config)
    experts = 800 + 80 + 800 + 8
    assert found.by_module == {"text_decoder": experts + 16 + 3, "visual_encoder": 110, "clip_vision": 50}
    assert found.apart == {"text_decoder/lm": 505, "clip_text": 40}
    assert found.total == experts + 16 + 3 + 110 + 50
    assert found.trainable == found.total - 50 - 10
    # A token visits one expert of eight; it meets the prompts of all of them in the router.
    assert found.active == found.total - experts * 7 // 8


def test_a_small_language_model_of_our_own_belongs_to_the_total(config):
    own = {
        name.replace("lm/model/", "lm/"): size for name, size in LEAVES.items() if name != "clip_text/block_0/kernel"
    }
    found = parameters.count_of(leaves(**own), config)
    assert found.apart == {}
    assert found.total == sum(own.values()) == found.trainable


@pytest.mark.parametrize(("top_k", "visited"), [(1, 1), (3, 3), (8, 8)])
def test_active_counts_the_experts_that_a_token_visits(config, top_k, visited):
    config.model.moe.top_k = top_k
    found = parameters.count_of(leaves(**{"text_decoder/experts/expand_kernel": 8_000, "rest": 7}), config)
    assert found.active == visited * 1_000 + 7


def test_the_shipped_model_holds_as_many_numbers_as_are_counted():
    model = loading.load()
    found = parameters.count(model.config)
    stored = {name: leaf.size for name, leaf in parts.flat(model.params).items()}
    assert found.total == sum(stored.values())
    for module, size in found.by_module.items():
        assert size == sum(each for name, each in stored.items() if name.partition("/")[0] == module)
    assert sum(found.by_module.values()) == found.total
    assert found.apart == {}


@pytest.mark.parametrize("switch", ["seg_only", "text_only", "mohe", "mcm", "rcc"])
def test_modules_add_up_under_every_switch(switch):
    config = sizes.tiny()
    whole = parameters.count(config)
    setattr(config.model, switch, not getattr(config.model, switch))
    found = parameters.count(config.validate())
    assert sum(found.by_module.values()) == found.total < whole.total
    assert found.trainable == found.total
    assert (found.active < found.total) == (config.model.mohe and not config.model.seg_only)


def test_a_model_larger_than_the_machine_is_counted_all_the_same():
    config = sizes.tiny()
    config.model.moe.num_experts, config.model.moe.hidden, config.model.width = 512, 8192, 8192
    found = parameters.count(config.validate())
    assert found.total > 512 * 2 * 8192 * 8192  # 275 GB of experts in float32
    assert found.active < found.total / 10
