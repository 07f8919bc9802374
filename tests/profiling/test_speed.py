"""Timing and memory of a program, with small functions in the place of the model."""

import resource

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from ssu_jax.config import sizes
from ssu_jax.profiling import memory, programs, speed
from ssu_jax.types import UserError

SIDE = 64


def prediction(make_arguments=lambda: (jnp.ones((SIDE, SIDE)), jnp.ones((SIDE, SIDE))), batch_size=2):
    function = jax.jit(lambda params, x: (params @ x, jnp.array([[[1, 5, 2, 0], [1, 2, 0, 0]]])))
    shapes = (jax.ShapeDtypeStruct((SIDE, SIDE), "float32"),) * 2
    return programs.Program(programs.PREDICTION, function, shapes, make_arguments, False, 10, batch_size)


def step():
    function = jax.jit(lambda state, x: (state + x, {"count": state.sum()}), donate_argnums=0)
    shapes = (jax.ShapeDtypeStruct((SIDE, SIDE), "float32"),) * 2
    return programs.Program(
        programs.TRAINING_STEP, function, shapes, lambda: (jnp.zeros((SIDE, SIDE)), jnp.ones((SIDE, SIDE))), True, 5, 1
    )


def test_times_are_those_of_one_sample_and_the_first_run_does_not_count(monkeypatch):
    seconds = iter([0.0, 7.0, 10.0, 20.0, 100.0, 104.0, 200.0, 202.0, 300.0, 309.0])  # compile, then 10 4 2 9
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(seconds))
    found = speed.run(prediction(), repeats=3)
    assert found.compile_seconds == 7.0
    assert found.speed == {
        "frames": 10,
        "seconds_per_sample": 2.0,
        "frames_per_second": 5.0,
        "fastest_seconds": 1.0,
        "slowest_seconds": 4.5,
        "repeats": 3,
        "longest_sentence": 3,
    }


def test_slow_programs_run_a_few_times_only(monkeypatch):
    ticks = iter(range(0, 100_000, 25))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: float(next(ticks)))
    assert speed.run(prediction(), repeats=50).speed["repeats"] == speed.LEAST_REPEATS


def test_a_step_goes_on_from_the_state_it_has_made():
    found = speed.run(step(), repeats=4)
    assert found.speed["repeats"] == 4
    assert "longest_sentence" not in found.speed
    assert found.memory["arguments"] == 2 * 4 * SIDE**2
    # The new state lies where the old one was.
    assert found.memory["peak"] - found.memory["temporaries"] < 2.1 * 4 * SIDE**2


def test_the_plan_of_a_known_program():
    found = speed.run(prediction(), repeats=1).memory
    assert found["arguments"] == 2 * 4 * SIDE**2
    assert found["outputs"] >= 4 * SIDE**2 + 4 * 8
    assert found["peak"] >= found["arguments"] + found["outputs"]
    assert (found["source"], found["device_peak"]) == ("compiler's plan", None)


def test_compiling_is_measured_without_the_cache_on_disk(tmp_path, monkeypatch):
    seen = []
    program = prediction()
    lower = program.function.lower

    class Watched:
        def lower(self, *shapes):
            seen.append(jax.config.jax_enable_compilation_cache)
            return lower(*shapes)

    before = jax.config.jax_enable_compilation_cache
    speed.run(program._replace(function=Watched()), repeats=1)
    assert (seen, jax.config.jax_enable_compilation_cache) == ([False], before)


def never():
    raise AssertionError("memory was taken")


@pytest.mark.parametrize("free", [4 * SIDE**2 - 1, 3 * 4 * SIDE**2 - 1])  # the weights do not fit; the rest does not
def test_what_does_not_fit_is_refused_before_anything_is_allocated(monkeypatch, free):
    monkeypatch.setattr(memory, "available", lambda: free)
    with pytest.raises(UserError, match=r"the prediction.* needs 0\.0 GiB and 0\.0 GiB are free on cpu: .*--only"):
        speed.run(prediction(never), repeats=1)


def test_memory_that_ends_on_the_way_is_told_in_a_line():
    def full():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    with pytest.raises(UserError, match="ran out of memory .*: lower --batch-size"):
        speed.run(prediction(full), repeats=1)

    def broken():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError):
        speed.run(prediction(broken), repeats=1)


def test_free_memory_is_the_least_of_machine_and_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "absent")
    whole = memory.available()
    assert 0 < whole <= psutil.virtual_memory().total
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.available() == 4000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available() > 4000


def test_the_peak_of_the_process_is_in_bytes():
    assert memory.peak_of_process() >= 0.9 * psutil.Process().memory_info().rss
    assert memory.peak_of_process() <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_random_batches_look_like_real_ones_and_are_the_same_every_time():
    config = sizes.tiny()
    batch, again = programs.random_batch(config, 2), programs.random_batch(config, 2)
    jax.tree.map(np.testing.assert_array_equal, batch, again)
    assert batch.frames.std() > 50
    assert set(np.unique(batch.masks)) == {0, 1}
    assert (batch.text_ids[..., 0] == 1).all()
    assert batch.text_ids[..., 1:].min() >= 3
    assert batch.text_ids.max() < config.model.vocab_size
