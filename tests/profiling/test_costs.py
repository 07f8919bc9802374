"""FLOPs of the two programs: their shares, what they depend on, and what they must not depend on."""

import pytest

from ssu_jax import models
from ssu_jax.config import sizes
from ssu_jax.flops import flops_of
from ssu_jax.profiling import programs
from ssu_jax.profiling.costs import costs


def of_prediction(config, batch_size=1):
    return costs(programs.prediction(config, batch_size))


def of_step(config, batch_size=1):
    return costs(programs.training_step(config, batch_size))


def test_a_prediction_counts_its_sentences_at_full_length():
    config = sizes.tiny()
    found = of_prediction(config)
    assert (found["loops_at_bound"], found["uncounted"]) == (1, [])
    assert found["frames"] == config.data.num_frames
    assert found["per_frame"] == pytest.approx(found["per_sample"] / config.data.num_frames, abs=1)
    assert found["per_sample"] == sum(found["by_kind"].values())
    assert found["published_per_sample"] == found["by_kind"]["matmul"] + found["by_kind"]["convolution"]
    config.data.max_text_tokens = 2 * config.data.max_text_tokens
    assert of_prediction(config)["published_per_sample"] > found["published_per_sample"]


def test_a_sample_costs_the_same_in_every_batch():
    one, three = of_prediction(sizes.tiny(), 1), of_prediction(sizes.tiny(), 3)
    # What a call does once (the experts' prompts times their weights) is shared by its samples.
    assert 0.95 * one["published_per_sample"] < three["published_per_sample"] <= one["published_per_sample"]
    assert three["by_kind"]["convolution"] == one["by_kind"]["convolution"]


def test_the_language_model_counts_as_reading_every_word_once():
    config = sizes.tiny()
    found = of_prediction(config)
    config.model.language_model.enabled = False
    without = of_prediction(config)
    # It catches up in a loop of unknown length, counted once a word; nothing else is of unknown length.
    assert (found["loops_counted_once"], without["loops_counted_once"]) == (1, 0)
    width, words = config.model.language_model.width, config.data.max_text_tokens - 1
    attention, feed, keys = 4 * width**2, 4 * width**2, 2 * config.data.max_text_tokens * width
    read = 2 * words * config.data.num_frames * (attention + feed + keys)
    head = 2 * words * config.data.num_frames * (width * config.model.vocab_size + config.model.width)
    assert found["by_kind"]["matmul"] - without["by_kind"]["matmul"] == read + head


def test_a_training_step_costs_about_three_forward_passes():
    config = sizes.tiny()
    program = programs.training_step(config, 2)
    params, batch = program.shapes[0].params, program.shapes[1]
    model = models.build(config)
    forward = flops_of(lambda params, batch: model.apply({"params": params}, batch, train=True), params, batch)
    found = costs(program)
    assert found["uncounted"] == []
    assert found["loops_counted_once"] == found["loops_at_bound"] == 0
    assert 2.0 < found["published_per_sample"] / (forward.published / 2) < 3.0  # pixels need no gradient


@pytest.mark.full
def test_a_training_step_sees_the_seconds_it_trains_on():
    config = sizes.tiny()
    whole = of_step(config)
    config.data.train_seconds = config.data.num_frames // 2
    half = of_step(config)
    assert (whole["frames"], half["frames"]) == (config.data.num_frames, config.data.num_frames // 2)
    assert half["by_kind"]["convolution"] == pytest.approx(whole["by_kind"]["convolution"] / 2, rel=0.05)
    assert config.data.num_frames == whole["frames"]  # the configuration is left as it was


@pytest.mark.full
def test_what_is_frozen_costs_no_gradient():
    config = sizes.tiny()
    learned = of_step(config)["by_kind"]["convolution"]
    config.train.freeze = ("visual_encoder",)
    assert of_step(config)["by_kind"]["convolution"] < learned
