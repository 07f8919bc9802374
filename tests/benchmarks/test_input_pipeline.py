"""The input benchmark: equal output is proved before it is timed, ratios point the right way, tables hold every row."""

import argparse
import importlib
import itertools
import pathlib
import sys

import numpy as np
import pytest

from ssu_jax.data import records, run_lengths, synthetic

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("input_pipeline"), importlib.import_module("input_peers")
    for name in ("input_pipeline", "input_peers"):
        sys.modules.pop(name)


@pytest.fixture(scope="module")
def made(modules, tmp_path_factory):
    """Options, a folder with a few records of noise and of clips, and the shard of the clips."""
    args = argparse.Namespace(
        stages=("read", "decode", "full"), peers=("grain",), repeats=1, record_bytes=1000, records=6, clips=2,
        copies=8, timed_clips=4, frame_size=96, image_size=96, batch_size=2, seed=0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("records")
    modules[0].make_noise(folder / "noise", args)
    return args, folder, modules[0].make_clips(folder / "clips", args)


def test_the_records_are_the_clips_over_and_over(modules, made):
    args, folder, path = made
    source = records.RecordSource(folder / "clips", "train")
    assert len(source) == 16
    assert source[0] == source[2] != source[1]
    assert list(modules[1].grain_records(path)) == [source[number] for number in range(16)]
    spans = modules[1]._Records(path, list(modules[1]._spans(path)))
    assert [spans[number] for number in range(len(spans))] == [source[number] for number in range(16)]


def test_every_stage_is_measured(modules, made, monkeypatch):
    benchmark, _ = modules
    args, folder, _ = made
    monkeypatch.setattr(benchmark.os, "sched_getaffinity", lambda process: {0})  # no reader processes
    result = benchmark.measure(args, folder)
    assert set(result["stages"]) == {"read noise", "read clips", "decode", "full"}
    assert result["stages"]["full"]["ours"]["ours_over_this_by_cpu"] == 1.0
    assert {"ours, sequential", "ours, random", "grain, no checksum"} == set(result["stages"]["read noise"])
    told = "\n".join(benchmark.lines_of(result))
    for figures in result["stages"].values():
        for name, row in figures.items():
            assert f"  {name} " in told
            assert all(value > 0 for value in row.values())
    assert "MB/s" in told


def test_a_ratio_above_one_says_that_ours_is_faster(modules):
    theirs, ours = [(2.0, 4.0), (2.0, 6.0), (9.0, 9.0)], [(1.0, 1.0), (1.0, 2.0), (1.0, 4.0)]
    found = modules[0].figures_of("another", theirs, ours, 10)
    assert found["ours_over_this_by_cpu"] == 2.0
    assert found["ours_over_this_by_wall"] == 3.0
    assert found["samples_per_cpu_second"] == 5.0
    assert found["samples_per_wall_second"] == round(10 / 6, 2)
    with_processes = modules[0].figures_of("torch, 2 processes", theirs, ours, 10)
    assert sorted(with_processes) == ["ours_over_this_by_wall", "samples_per_wall_second"]


def test_an_output_that_is_not_equal_stops_it(modules, made):
    benchmark, peers = modules
    args, folder, path = made
    ours = benchmark.pipelines(folder / "clips", path, args)["ours"]

    def theirs(change: float):
        for batch in ours():
            yield {name: np.array(getattr(batch, name)) + change * (name == "log_mel") for name in peers.FIELDS}

    found = {"ours": ours, "tf.data, equal": lambda: theirs(0.0), "tf.data, own": lambda: theirs(0.5)}
    told = benchmark.differences(found)
    assert not any(told["tf.data, equal"].values())
    assert told["tf.data, own"] == pytest.approx({"frames": 0, "masks": 0, "log_mel": 0.5, "frame_valid": 0}, abs=1e-6)
    with pytest.raises(SystemExit, match="does not give what ours gives"):
        benchmark.differences(found | {"torch, equal": lambda: theirs(1e-3)})


def test_a_turn_that_runs_out_of_records_is_refused(modules):
    with pytest.raises(SystemExit, match="only 3 of 4 items"):
        modules[0].turn(itertools.chain(range(3)), 4)


def test_the_peers_masks_are_those_of_the_clip(modules):
    clip = synthetic.make_clip(3, "train", 5)
    counts = [item for obj in clip.objects if obj.masks is not None for item in run_lengths.encode(obj.masks)]
    flags = ([obj.sounding for obj in clip.objects], [obj.on_screen for obj in clip.objects],
             [obj.masks is not None for obj in clip.objects])  # fmt: skip
    for decode in (run_lengths.decode, modules[1].coco_decode):
        union = modules[1].union_of_masks((counts, np.concatenate(flags[0]), *flags[1:]), (96, 96), decode)
        np.testing.assert_array_equal(union, clip.sounding_masks)
