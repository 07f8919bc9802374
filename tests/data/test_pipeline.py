"""Batches depend on (seed, step) alone, whatever reads them; what goes wrong is said and ends the run."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from small_clips import CLASSES, leave_without_a_word, small_clip

from ssu_jax.config import sizes
from ssu_jax.data import audio, execution, order, pipeline, records
from ssu_jax.tokenizer import BOS, EOS, Tokenizer
from ssu_jax.types import SoundObject, UserError

NUMBER = 10


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(small_clip().captions, 100)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("records")
    for split in ("train", "val"):
        clips = (small_clip(i, size=32) for i in range(NUMBER))
        records.write_split(path, split, clips, 3, classes=CLASSES, source={})
    return path


@pytest.fixture
def config(directory):
    config = sizes.tiny()
    config.data.dir, config.data.classes, config.data.num_frames = str(directory), CLASSES, 3
    config.train.batch_size = 4
    return config


def take(batches, number):
    taken = [next(batches) for _ in range(number)]
    if hasattr(batches, "close"):
        batches.close()
    return taken


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for name, mine, theirs in zip(a._fields, a, b, strict=True):
            np.testing.assert_array_equal(mine, theirs, err_msg=name)


def test_shapes_and_types(config, tokenizer):
    batch = next(pipeline.train_batches(config, tokenizer, 0))
    wanted = {
        "frames": ("uint8", (4, 3, 32, 32, 3)), "log_mel": ("float32", (4, 3, 96, 64)), "frame_valid": ("bool", (4, 3)),
        "masks": ("uint8", (4, 3, 32, 32)), "text_ids": ("int32", (4, 3, 28)), "source_labels": ("uint8", (4, 3, 3)),
        "audible_labels": ("uint8", (4, 3, 3)), "semantic": ("int8", (4, 3, 32, 32)), "scene_label": ("int32", (4,)),
        "record": ("int32", (4,)), "clip_text_ids": ("int32", (4, 3, 0)),
        "mask_known": ("bool", (4, 3)), "text_known": ("bool", (4, 3)), "source_known": ("bool", (4, 3)),
    }  # fmt: skip
    assert {name: (value.dtype.name, value.shape) for name, value in batch._asdict().items()} == wanted


def test_each_epoch_holds_each_record_once_and_no_two_epochs_are_alike(config, tokenizer):
    batches = pipeline.train_batches(config, tokenizer, 0)
    order = np.concatenate([batch.record for batch in take(batches, 15)])
    epochs = order.reshape(6, NUMBER)
    for epoch in epochs:
        assert sorted(epoch) == list(range(NUMBER))
    assert len({tuple(epoch) for epoch in epochs}) == 6
    config.train.seed = 1
    other = np.concatenate([batch.record for batch in take(pipeline.train_batches(config, tokenizer, 0), 15)])
    assert (other != order).any()


def test_permutations_are_pinned():
    # Raw bits of Philox: the same in every version of NumPy, so a run can be resumed after an upgrade.
    assert order.permutation(0, 0, 8).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    assert order.permutation(0, 1, 8).tolist() == [4, 7, 6, 1, 2, 0, 5, 3]


def test_any_start_threads_and_processes_give_the_same_batches(config, tokenizer, monkeypatch):
    whole = take(pipeline.train_batches(config, tokenizer, 0), 9)
    assert_same(take(pipeline.train_batches(config, tokenizer, 5), 4), whole[5:])
    with monkeypatch.context() as patch:
        patch.setattr(execution.importlib.util, "find_spec", lambda name: None)  # a machine without Grain
        assert_same(take(pipeline.train_batches(config, tokenizer, 2), 4), whole[2:6])
    for num_workers, start in ((1, 0), (2, 3)):
        config.data.num_workers = num_workers
        assert_same(take(pipeline.train_batches(config, tokenizer, start), 5), whole[start : start + 5])


@pytest.mark.parametrize("hosts", [1, 2, 4, "apart"])
def test_hosts_make_their_rows_of_the_same_batches(config, tokenizer, hosts):
    whole = take(pipeline.train_batches(config, tokenizer, 2), 3)
    apart = [(3, 0), (1,), (2, 1)]  # two may hold one row
    parts = apart if hosts == "apart" else np.arange(4).reshape(hosts, -1).tolist()
    for rows in parts:
        mine = take(pipeline.train_batches(config, tokenizer, 2, rows=rows), 3)
        assert_same(mine, [type(batch)(*(values[list(rows)] for values in batch)) for batch in whole])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_array_records_give_the_same_batches(config, tokenizer, tmp_path, num_workers):
    wanted = take(pipeline.train_batches(config, tokenizer, 1), 3)
    clips = (small_clip(i, size=32) for i in range(NUMBER))
    records.write_split(tmp_path, "train", clips, 2, classes=CLASSES, source={}, file_format="array_record")
    config.data.dir, config.data.num_workers = str(tmp_path), num_workers
    assert_same(take(pipeline.train_batches(config, tokenizer, 1), 3), wanted)


def test_several_directories_are_one_set_or_mixed_by_weight(config, tokenizer, directory, tmp_path):
    clips = (dataclasses.replace(small_clip(i, size=32), id=f"other-{i}", captions=("",) * 3) for i in range(4))
    records.write_split(tmp_path, "train", clips, 1, classes=("siren", *CLASSES[:2]), source={"other": 1})
    config.data.dir, config.train.batch_size = f"{directory},{tmp_path}", 7
    joined = [batch.record.tolist() for batch in take(pipeline.train_batches(config, tokenizer, 0), 4)]
    assert sorted(joined[0] + joined[1]) == list(range(NUMBER + 4))
    config.data.weights = (1.0, 3.0)
    mixed = take(pipeline.train_batches(config, tokenizer, 0), 12)
    theirs = [sum(batch.record >= NUMBER) for batch in mixed]
    assert sum(theirs) == 7 * 12 * 3 / 4
    assert set(theirs) <= {5, 6}
    said = [[(row[1:2] != EOS).any() for row in batch.text_ids[:, 0]] for batch in mixed]
    assert [sum(row) <= 7 - theirs for row, theirs in zip(said, theirs, strict=True)] == [True] * 12
    first = [number for batch in mixed for number in batch.record.tolist() if number >= NUMBER]
    assert all(sorted(first[i : i + 4]) == [10, 11, 12, 13] for i in range(0, 60, 4))
    assert_same(take(pipeline.train_batches(config, tokenizer, 5), 2), mixed[5:7])
    # Evaluation reads the directories that hold the split.
    assert pipeline.has_split(config.data.dir, "val")
    evaluated = take(pipeline.eval_batches(config, tokenizer, "val", 4), 1)[0]
    assert evaluated.record.tolist() == [0, 1, 2, 3]
    config.data.weights = (1.0,)
    with pytest.raises(UserError, match="one weight a directory"):
        pipeline.train_batches(config, tokenizer, 0)


def test_an_example_by_hand(config, tokenizer):
    clip = small_clip(1, size=32)  # its last frame is not valid
    config.data.num_frames = 5
    example = pipeline.clip_to_example(clip, config.data, tokenizer, 7)
    bell, drum, siren = clip.objects
    np.testing.assert_array_equal(example.frames[:3], clip.frames)
    assert not example.frames[3:].any()
    assert example.frame_valid.tolist() == [True, True, False, False, False]
    np.testing.assert_array_equal(example.masks[0], bell.masks[0])
    assert not example.masks[1:].any()
    np.testing.assert_array_equal(example.semantic[:3], bell.masks[:3] * 1 + drum.masks[:3] * 2)
    assert example.source_labels.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert example.audible_labels.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert tokenizer.decode(example.text_ids[0]) == clip.captions[0]
    assert (example.text_ids[1:, :2] == [BOS, EOS]).all()
    assert example.scene_label == 0
    assert example.record == 7
    np.testing.assert_array_equal(example.log_mel[:3], audio.second_patches(clip.sound / 32768, 16000, 3, 0.01))
    np.testing.assert_allclose(example.log_mel[3:], np.log(0.01), rtol=1e-6)


def test_what_is_not_annotated_is_marked_unknown(config, tokenizer):
    """AVSBench S4: a mask in the first frame alone; VGGSound: a class, and nothing else."""
    bell = small_clip(0, size=32).objects[0]
    first = np.arange(3) == 0
    clip = dataclasses.replace(
        small_clip(0, size=32), objects=(dataclasses.replace(bell, sounding=np.ones(3, bool)),), masks_known=first
    )
    example = pipeline.clip_to_example(clip, config.data, tokenizer)
    assert example.mask_known.tolist() == [True, False, False]
    assert (example.semantic[1:] == -1).all()
    assert (example.semantic[0] >= 0).all()
    assert example.text_known.all()
    assert example.source_known.all()
    nothing = np.zeros(3, bool)
    unseen = dataclasses.replace(bell, masks=None, sounding=nothing)
    clip = dataclasses.replace(
        clip, objects=(unseen,), captions_known=nothing, sources_known=nothing, masks_known=nothing
    )
    example = pipeline.clip_to_example(clip, config.data, tokenizer)
    assert not (example.mask_known | example.text_known | example.source_known).any()
    assert example.scene_label == 0
    # A source in view whose pixels nobody drew: the masks of the seconds in which it sounds are not known.
    clip = dataclasses.replace(small_clip(0, size=32), objects=(dataclasses.replace(bell, masks=None),))
    assert pipeline.clip_to_example(clip, config.data, tokenizer).mask_known.tolist() == [False, True, True]


def test_training_sees_a_stretch_of_each_clip(config, tokenizer, tmp_path):
    """Bells that sound in one second only: picture, mask, sentence and loud sound stay together."""
    t = 8
    clips = []
    for number in range(12):
        clip = small_clip(number, t=t, size=32)
        at = np.arange(t) == number % t
        mask = np.zeros((t, 32, 32), bool)
        mask[:, 4:12, 4:12] = True
        grey = np.where(at, 200, 20).astype(np.uint8)
        clips.append(dataclasses.replace(
            clip, frames=grey[:, None, None, None] * np.ones((t, 32, 32, 3), np.uint8),
            captions=tuple("A bell rings." if flag else "" for flag in at), valid=np.ones(t, bool),
            sound=clip.sound * np.repeat(at, 16000), objects=(SoundObject("bell", at, True, mask),),
        ))  # fmt: skip
    records.write_split(tmp_path, "train", clips, 1, classes=CLASSES, source={})
    config.data.dir, config.data.num_frames, config.data.train_seconds = str(tmp_path), t, 3
    config.data.augment.time_shift_seconds = 0.0
    starts = set()
    for batch in take(pipeline.train_batches(config, tokenizer, 0), 12):
        assert batch.frames.shape[:2] == (4, 3)
        told = (batch.text_ids == EOS).argmax(-1) > 1
        np.testing.assert_array_equal(batch.frames.max((2, 3, 4)) > 100, told)
        np.testing.assert_array_equal(batch.masks.any((2, 3)), told)
        np.testing.assert_array_equal(batch.audible_labels[..., 0] == 1, told)
        np.testing.assert_array_equal(batch.log_mel.max((2, 3)) > -2, told)
        seen = np.nonzero(told)
        starts |= set((batch.record[seen[0]] % t - seen[1]).tolist())
    assert starts == set(range(6))
    whole = next(pipeline.eval_batches(config, tokenizer, "train", 2))
    assert whole.frames.shape[1] == t


def test_a_record_is_changed_anew_each_time(config, tokenizer):
    seen = {}
    for batch in take(pipeline.train_batches(config, tokenizer, 0), 8):
        for number, sound in zip(batch.record, batch.log_mel, strict=True):
            seen.setdefault(int(number), []).append(sound)
    assert all(len(sounds) > 2 for sounds in seen.values())
    assert all((a != b).any() for sounds in seen.values() for a, b in zip(sounds, sounds[1:], strict=False))


def test_longer_clips_are_cut_and_other_sizes_resized(config, tokenizer):
    clip = small_clip(0, t=6, size=64)
    example = pipeline.clip_to_example(clip, config.data, tokenizer)
    assert example.frames.shape == (3, 32, 32, 3)
    assert example.log_mel.shape == (3, 96, 64)
    np.testing.assert_array_equal(example.masks[0], clip.objects[0].masks[0, 1::2, 1::2])
    assert example.scene_label == 0
    assert example.record == -1


def test_what_a_data_set_does_not_know(config, tokenizer):
    clip = small_clip(0, size=32)
    no_mask = dataclasses.replace(clip, objects=(dataclasses.replace(clip.objects[0], masks=None),), category="unnamed")
    example = pipeline.clip_to_example(no_mask, config.data, tokenizer)
    assert (example.semantic == -1).all()
    assert example.scene_label == -1
    cat = SoundObject("cat", np.ones(3, bool), False)
    with pytest.raises(UserError, match="the class 'cat', which config.data.classes does not name"):
        pipeline.clip_to_example(dataclasses.replace(clip, objects=(cat,)), config.data, tokenizer)


def test_evaluation_runs_in_order_and_fills_the_last_batch(config, tokenizer, directory):
    for batch_size in (3, 4, 16):
        batches = list(pipeline.eval_batches(config, tokenizer, "val", batch_size))
        assert all(len(batch.record) == batch_size for batch in batches)
        numbers = np.concatenate([batch.record for batch in batches])
        assert numbers[:NUMBER].tolist() == list(range(NUMBER))
        assert (numbers[NUMBER:] == -1).all()
        assert len(numbers) - NUMBER < batch_size
        assert not np.concatenate([batch.frame_valid for batch in batches])[NUMBER:].any()
    first = next(pipeline.eval_batches(config, tokenizer, "val", 4, num_clips=2))
    assert first.record.tolist() == [0, 1, -1, -1]
    source = records.RecordSource(directory, "val")
    unchanged = records.decode_clip(source[0])
    np.testing.assert_array_equal(first.frames[0], unchanged.frames)
    config.data.dir = ""
    elsewhere = pipeline.eval_batches(config, tokenizer, "val", 4, directory=str(directory))
    assert_same([next(elsewhere)], [next(pipeline.eval_batches(config, tokenizer, "val", 4, 0, str(directory)))])


def test_mistakes_are_said_before_anything_runs(config, tokenizer, tmp_path, directory):
    def message(**changes):
        with pytest.raises(UserError) as caught:
            pipeline.train_batches(
                dataclasses.replace(config, data=dataclasses.replace(config.data, **changes)), tokenizer, 0
            )
        assert caught.value.exit_code == 2
        return str(caught.value)

    assert "--config.data.dir" in message(dir="")
    assert "no directory" in message(dir=str(tmp_path / "none"))
    assert "holds no records" in message(dir=str(tmp_path))
    assert "it holds train, val" in message(train_split="test")
    assert "the class 'siren'" in message(classes=("bell", "drum"))
    records.write_split(tmp_path, "train", [], 1, classes=CLASSES, source={})
    assert "holds no records" in message(dir=str(tmp_path))


@pytest.fixture
def damaged(config, tmp_path, directory):
    """A copy of the records with one flipped bit in record 4."""
    for path in directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "train-00001-of-00003.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4  # records 1, 4, 7 and no other
    path.write_bytes(content)
    config.data.dir = str(tmp_path)
    return config


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_record_ends_the_run_by_name(damaged, tokenizer, num_workers):
    damaged.data.num_workers = num_workers
    batches = pipeline.train_batches(damaged, tokenizer, 0)
    with pytest.raises(UserError, match=r"train-00001-of-00003.tfrecord: record 4 \(row 1\) at byte \d+") as caught:
        take(batches, 4)
    assert caught.value.exit_code == 78
    with pytest.raises(StopIteration):
        next(batches)
    if num_workers == 0:
        damaged.data.verify_shards = True
        with pytest.raises(UserError, match="sha256"):
            pipeline.train_batches(damaged, tokenizer, 0)


def readers_of(process):
    """Grain's readers: all children but the resource tracker."""
    return [child for child in process.children() if "resource_tracker" not in " ".join(child.cmdline())]


@pytest.mark.slow
def test_a_reader_that_ends_is_noticed(config, tokenizer, monkeypatch):
    config.data.num_workers = 2
    monkeypatch.setattr(execution, "GRACE_SECONDS", 2)
    batches = pipeline.train_batches(config, tokenizer, 0)
    next(batches)
    victim = readers_of(psutil.Process())[0]
    os.kill(victim.pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(UserError, match="a reader process ended") as caught:
        take(batches, 100)
    assert caught.value.exit_code == 75
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_a_reader_that_leaves_without_a_word_is_noticed(monkeypatch):
    monkeypatch.setattr(execution, "GRACE_SECONDS", 2)
    batches = execution.run_in_grain(leave_without_a_word, 2, 0, 100, 1)
    with pytest.raises(UserError, match="a reader process ended"):
        next(batches)


PARENT = """
import sys
from ssu_jax.config import sizes
from ssu_jax.data import pipeline
from ssu_jax.tokenizer import Tokenizer
if __name__ == "__main__":
    config = sizes.tiny()
    config.data.dir, config.data.classes, config.data.num_workers = sys.argv[1], ("bell", "drum", "siren"), 2
    config.train.batch_size = 2
    batches = pipeline.train_batches(config, Tokenizer.train(["The bell ."], 10), 0)
    next(batches)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_readers_end_with_a_killed_parent(directory, tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, str(tmp_path / "parent.py"), str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout.readline() == b"ready\n"
        readers = readers_of(psutil.Process(parent.pid))
        assert len(readers) == 2
        parent.kill()
    _, alive = psutil.wait_procs(readers, timeout=20)
    assert not alive
