"""Figures of expert layers in the log, and the warning when experts collapse."""

import json

import numpy as np
import pytest
import toy
from experts_toy import config, install

from ssu_jax.training import logging, routing_log
from ssu_jax.training.loop import train

EVEN = np.full((1, 8), 1 / 8)


def with_starved(count: int, num_experts: int = 8) -> np.ndarray:
    """One layer; `count` experts get a twentieth of their share, the others what is left."""
    load = np.full(num_experts, 0.05 / num_experts)
    load[count:] = (1 - load[:count].sum()) / (num_experts - count)
    return load[None]


def told(*loads, start=0) -> list[str]:
    watch = routing_log.CollapseWatch()
    return [line for number, load in enumerate(loads) for line in watch.lines(start + 10 * number, load)]


def test_a_layer_that_starves_a_quarter_of_its_experts_is_named_once():
    (line,) = told(*[with_starved(2)] * 20)
    assert line.startswith("warning: the experts of block 0 collapse: 2 of 8 get less than 0.1 of their even share")
    assert "over steps 0 to 40" in line
    for option in ("losses.balance", "model.moe.balancing_rate", "model.moe.router_noise"):
        assert option in line


def test_it_is_told_again_after_the_layer_had_recovered():
    lines = told(*[with_starved(2)] * 6, *[EVEN] * 6, *[with_starved(3)] * 6)
    assert [line.split(" of block ")[1][:10] for line in lines] == ["0 collapse", "0 are in u", "0 collapse"]
    # Near the bound it neither comes nor goes: one starved expert of 8 is no collapse and no recovery.
    assert len(told(*[with_starved(2)] * 6, *[with_starved(1)] * 20, *[with_starved(2)] * 6)) == 1


@pytest.mark.parametrize("load", [EVEN, with_starved(1), np.ones((1, 1)), with_starved(15, 64)])
def test_an_even_layer_a_single_starved_expert_and_the_dense_model_are_left_alone(load):
    assert told(*[load] * 20) == []


def test_one_hot_expert_of_many_is_a_collapse():
    load = np.full((2, 64), (1 - 9 / 64) / 63)
    load[1, 5] = 9 / 64
    load[0] = 1 / 64
    (line,) = told(*[load] * 10)
    assert "experts of block 1 collapse: 0 of 64" in line
    assert "the busiest 9.0 times its share" in line


def test_a_few_noisy_steps_are_no_collapse():
    """An even router of 64 experts and 1,024 words a step: single steps starve experts, windows do not."""
    rng = np.random.default_rng(0)
    loads = [rng.multinomial(200, np.full(64, 1 / 64))[None] / 200 for _ in range(200)]
    assert np.mean([(load < 0.1 / 64).mean() for load in loads]) > 0.02
    assert told(*loads) == []


def test_rows_name_the_layer(tmp_path):
    router = {"load": np.float32([[0.25, 0.75], [1 / 3, 2 / 3]]), "entropy": np.float32([0.5, np.nan])}
    values = {"loss": np.float32(1), "learning_rate": np.float32(1), "router": router}
    with logging.MetricsLog(tmp_path, 0, 10, False) as log:
        log.train(1, values, 4, [])
        log.evaluation(1, {"miou": 0.5}, 0.5)  # a row of the same step without experts
        log.draw_load(1)
    row, _ = logging.read_rows(tmp_path / "metrics.jsonl")
    assert row["router/block_0/load"] == [0.25, 0.75]
    assert row["router/block_1/load"] == [0.33333, 0.66667]
    assert (row["router/block_0/entropy"], row["router/block_1/entropy"]) == (0.5, None)
    assert "router" not in row
    np.testing.assert_array_equal(routing_log.load_in(row), [[0.25, 0.75], [0.33333, 0.66667]])
    assert routing_log.load_in({"loss": 1.0}) is None
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"train/router/block_0/entropy" in content
    assert b"router/load" in content
    assert b"\x89PNG" in content


def test_a_run_that_collapses_says_so(tmp_path, monkeypatch, capsys):
    """With a large skew all words are alike to the router: one expert gets them all."""
    install(monkeypatch.setattr, 30.0)
    made = config(toy.write_records(tmp_path / "data"), train__checkpoint_every_steps=20, train__num_steps=20,
                  train__learning_rate=1e-4, train__picture_every_steps=10)  # fmt: skip
    train(made, tmp_path / "run")
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: the experts")]
    assert len(warnings) == 1
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert events.read_bytes().count(b"router/load") == 2  # a picture at steps 10 and 20
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["router/block_0/max_load"] > 3.0
    assert rows[-1]["router/block_0/dropped_share"] > 0.5
