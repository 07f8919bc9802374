"""The benchmarks of the expert layer: what they compare multiplies alike, what they write is complete, runs resume."""

import argparse
import importlib.util
import json
import math
import pathlib
import sys

import jax
import numpy as np
import pytest

from ssu_jax.flops import flops_of
from ssu_jax.types import UserError

ROOT = pathlib.Path(__file__).parents[2]
SMALL = {"tokens": 24, "width": 12, "hidden": 12, "top_k": 2, "repeats": 1, "seed": 0}


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def overhead(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return _load(ROOT / "benchmarks/moe_overhead.py")


@pytest.fixture
def baselines(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return _load(ROOT / "benchmarks/moe_baselines.py")


@pytest.fixture
def sweep():
    return _load(ROOT / "benchmarks/moe_sweep.py")


def _overhead_args(**changes):
    settings = SMALL | {"dispatch": "gather", "dropless": False, "dtype": "float32", "router_width": 0}
    return argparse.Namespace(**(settings | changes))


@pytest.mark.parametrize(("experts", "granularity"), [(4, 1), (4, 3)])
def test_the_experts_multiply_what_the_dense_block_multiplies(overhead, experts, granularity):
    """At capacity 1.0, forward: the rest is the router, query times keys and keys times tokens."""
    args = _overhead_args()
    config = overhead.config_of(args, experts, 1.0, "uniform", granularity)
    assert config.top_k * config.hidden == args.top_k * args.hidden
    products, dense = (
        flops_of(layer["forward"]).published for layer in (overhead.layer_of(args, config), overhead.dense_of(args))
    )
    router = 2 * config.num_experts * args.width * (args.width + args.tokens)
    assert products == dense + router


def test_a_figure_of_the_overhead_is_complete(overhead):
    figures = overhead.measure(_overhead_args(), 4, 1.0, "uniform", 3)
    assert [figure["pass"] for figure in figures] == ["forward", "train"]
    for figure in figures:
        assert (figure["experts"], figure["top_k"], figure["hidden"], figure["granularity"]) == (12, 6, 4, 3)
        assert (figure["capacity"], figure["routing"], figure["dropped"], figure["max_load"]) == (1.0, "uniform", 0, 1)
        ratio = figure["experts_cpu_seconds"] / figure["dense_cpu_seconds"]
        assert figure["ratio"] == pytest.approx(ratio, rel=0.02)
        assert figure["versions"]["jax"] == jax.__version__
        json.dumps(figure)


def test_our_baselines_compute_the_same(baselines):
    """With even loads and capacity 1.0 nothing overflows, so all ways give one loss."""
    losses = {}
    for name, options in baselines.OURS.items():
        args = _overhead_args(**options)
        losses[name] = float(baselines.layer_of(args, baselines.config_of(args, 4, 1.0, "uniform"))["forward"]()[0])
    assert len(losses) == 4
    np.testing.assert_allclose(list(losses.values()), losses["gather"], rtol=1e-6)


@pytest.mark.full
def test_qwen_is_compared_at_equal_active_size(baselines):
    """Both of its ways give one loss, and a token meets as many weights as in our block."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    args = argparse.Namespace(**SMALL, qwen_hidden=0)
    blocks = baselines.qwen_of(args, 4, list(baselines.QWEN))
    np.testing.assert_allclose(blocks["qwen3_eager"]["forward"](), blocks["qwen3_grouped_mm"]["forward"](), rtol=1e-5)
    np.testing.assert_allclose(blocks["qwen3_eager"]["train"](), blocks["qwen3_grouped_mm"]["train"](), rtol=1e-5)
    assert 3 * baselines.qwen_width(args) == 2 * args.hidden
    options = _overhead_args(layers=["gather", "qwen3_grouped_mm"], capacity=1.0, qwen_hidden=0)
    figures = baselines.measure(options, 4)
    assert [(f["layer"], f["pass"]) for f in figures] == [
        ("gather", "forward"), ("qwen3_grouped_mm", "forward"), ("gather", "train"), ("qwen3_grouped_mm", "train"),
    ]  # fmt: skip
    assert figures[0]["times_gather"] == 1.0
    assert {"torch", "transformers", "jax"} <= set(figures[0]["versions"])


def test_torch_is_asked_for_in_one_line(baselines, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="qwen3 wants torch"):
        baselines.qwen_of(argparse.Namespace(**SMALL, qwen_hidden=0), 4, ["qwen3_eager"])


@pytest.mark.parametrize("name", ["1", "2", "16", "8x4", "1x2"])
def test_models_of_the_sweep_differ_in_their_experts_alone(name):
    get_config = _load(ROOT / "configs/moe_sweep.py").get_config
    config, usual = get_config(name), get_config()
    moe = config.model.moe
    count, _, finer = name.partition("x")
    assert moe.num_experts == int(count) * int(finer or 1)
    assert moe.top_k * moe.hidden == usual.model.moe.top_k * usual.model.moe.hidden
    config.model.moe, config.name = usual.model.moe, usual.name
    assert config == usual


@pytest.mark.parametrize("name", ["", "x", "0", "8x0", "8x3", "eight"])
def test_a_wrong_name_in_the_sweep_is_refused(name):
    with pytest.raises(UserError, match="^moe_sweep: .*"):
        _load(ROOT / "configs/moe_sweep.py").get_config(name)


def _trained(calls, *arguments):
    """In the place of `ssu train`: a run of eight logged steps whose later half is easy to add up."""
    calls.append(arguments)
    workdir = arguments[arguments.index("--workdir") + 1]
    experts, _, finer = workdir.name.partition("x")
    num_experts = int(experts) * int(finer)
    config = {
        "model": {"moe": {"num_experts": num_experts, "top_k": 2, "hidden": 8}},
        "data": {"train_seconds": 3, "max_text_tokens": 11}, "train": {"num_steps": 40, "batch_size": 8, "seed": 0},
    }  # fmt: skip
    rows = [
        {"kind": "train", "step": step, "loss": 50.0 - step, "caption": 5.0 - step / 10, "clips_per_second": step / 10,
         "router/block_0/max_load": 2.0, "router/block_1/max_load": 1.5, "router/block_0/dropped_share": 0.0,
         "router/block_0/entropy": 0.5 * math.log(num_experts), "router/block_1/entropy": math.log(num_experts)}
        for step in range(5, 45, 5)
    ]  # fmt: skip
    workdir.mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps(config))
    (workdir / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {"kind": "eval", "step": 40}])
    )


@pytest.fixture
def sweep_args(tmp_path):
    return argparse.Namespace(experts=[1, 4], granularity=[1, 2], base=4, steps=40, clips=16, seed=0, workdir=tmp_path)


def test_a_sweep_trains_each_model_once(sweep, sweep_args, monkeypatch):
    calls = []
    monkeypatch.setattr(sweep, "_ssu", lambda *arguments: _trained(calls, *arguments))
    names = sweep.names_of(sweep_args)
    assert names == [(1, 1), (4, 1), (4, 2)]
    lines = [sweep.run(*name, sweep_args) for name in names]
    assert [line["experts"] for line in lines] == [1, 4, 8]
    assert [sweep.run(*name, sweep_args) for name in names] == lines
    assert len(calls) == 3
    sweep_args.steps = 80
    with pytest.raises(SystemExit, match="take another --workdir"):
        sweep.run(4, 1, sweep_args)


def test_a_line_of_the_sweep_by_hand(sweep, sweep_args, monkeypatch):
    """Steps 35 and 40 are the last quarter of 40; the fastest stretch is the last one, 4 clips of 3 x 10 words."""
    monkeypatch.setattr(sweep, "_ssu", lambda *arguments: _trained([], *arguments))
    line = sweep.run(4, 2, sweep_args)
    assert (line["loss"], line["caption"], line["tokens_per_second"]) == (12.5, 1.25, 120)
    assert (line["max_load"], line["entropy"], line["granularity"], line["coarse_experts"]) == (2.0, 0.75, 2, 4)


def test_the_plot_holds_both_rows(sweep, sweep_args, monkeypatch):
    monkeypatch.setattr(sweep, "_ssu", lambda *arguments: _trained([], *arguments))
    lines = [sweep.run(*name, sweep_args) for name in sweep.names_of(sweep_args)]
    figure = sweep.plot(lines, sweep_args)
    drawn = [[list(line.get_xdata()) for line in axis.get_lines()] for axis in figure.axes]
    assert drawn == [[[1, 4], [4, 8]]] * 3
    assert sweep.table(lines).count("\n") == len(lines) + 1
