import json
import sys

import numpy as np
import pytest

from ssu_jax.training import logging
from ssu_jax.training.board import EventsWriter
from ssu_jax.types import UserError

VALUES = {"loss": np.float32(0.1), "learning_rate": np.float32(1e-3), "skipped_in_row": np.int32(0)}


def log_steps(path, *steps: int, start: int = 0, is_scored: bool = False, evaluated: int | None = None) -> list[dict]:
    with logging.MetricsLog(path, start, 100, is_scored) as log:
        for step in steps:
            log.train(step, VALUES, 4, [1, 2])
            if step == evaluated:
                log.evaluation(step, {"miou": 0.5, "meteor": None, "split": "val"}, 0.5)
    return logging.read_rows(path / "metrics.jsonl")


def test_a_row_holds_the_exact_number(tmp_path):
    (row,) = log_steps(tmp_path, 1)
    assert np.float32(row["loss"]) == np.float32(0.1)
    assert (row["kind"], row["step"], row["records"]) == ("train", 1, [1, 2])


def test_what_is_not_finite_is_null_and_still_json(tmp_path):
    with logging.MetricsLog(tmp_path, 0, 10, False) as log:
        log.train(1, VALUES | {"loss": np.float32(np.nan), "mask": np.float32(-np.inf)}, 4, [])
    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert row["loss"] is None
    assert row["mask"] is None


def test_rows_that_will_be_written_again_are_taken_off(tmp_path):
    log_steps(tmp_path, 1, 2, 3, evaluated=2)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 4, "lo')  # a kill in the middle of a line
    assert [row["step"] for row in log_steps(tmp_path, start=3)] == [1, 2, 2, 3]
    assert [row["kind"] for row in log_steps(tmp_path, start=2, is_scored=True)] == ["train", "train", "eval"]
    assert [row["kind"] for row in log_steps(tmp_path, start=2, is_scored=False)] == ["train", "train"]
    assert [row["step"] for row in log_steps(tmp_path, 1, start=0)] == [1]


def test_elsewhere_than_on_a_terminal_there_are_plain_lines(tmp_path, capsys):
    log_steps(tmp_path, 20, evaluated=20)
    said = capsys.readouterr()
    train, evaluation = said.out.splitlines()
    assert train.startswith("step 20/100  loss 0.1000  lr 1.00e-03")
    assert train.endswith("left")
    assert evaluation == "step 20/100  validation: miou 0.500"
    assert said.err == ""


def test_on_a_terminal_there_is_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with logging.MetricsLog(tmp_path, 40, 100, False) as log:
        log.advance(50)
        log.train(50, VALUES, 4, [])
    said = capsys.readouterr()
    assert "50/100" in said.err
    assert said.out == ""


def test_the_wait_for_data_is_a_share_of_the_time_and_told_when_it_is_long(tmp_path, capsys, monkeypatch):
    now = iter([0.0, 100.0, *(100.0 + 10 * row for row in (1, 1, 2, 2, 3, 3))])  # read twice a row
    with monkeypatch.context() as patch:
        patch.setattr(logging.time, "monotonic", lambda: next(now))
        with logging.MetricsLog(tmp_path, 0, 100, False) as log:
            log.waited(50.0)
            log.start_clock(0)  # what was before does not count
            for step, waits in enumerate(([1.5, 0.8], [0.5], []), 1):
                for seconds in waits:
                    log.waited(seconds)
                log.train(step, VALUES, 4, [])
    rows = logging.read_rows(tmp_path / "metrics.jsonl")
    assert [row["data_wait_share"] for row in rows] == pytest.approx([0.23, 0.05, 0.0])
    said = capsys.readouterr().out.splitlines()
    assert "clips/s  waits 23% for data: raise config.data.num_workers  " in said[0]
    assert not any("waits" in line for line in said[1:3])


def test_a_disk_that_is_full_is_said_at_once(tmp_path, monkeypatch):
    def full(writer):
        raise OSError(28, "No space left on device")

    with logging.MetricsLog(tmp_path, 0, 10, False) as log, monkeypatch.context() as patch:
        patch.setattr(EventsWriter, "flush", full)
        with pytest.raises(UserError, match="the disk is full"):
            log.train(1, VALUES, 4, [])


def test_two_starts_in_one_second_keep_their_files_apart(tmp_path):
    log_steps(tmp_path, 1)
    log_steps(tmp_path, 2, start=1)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
