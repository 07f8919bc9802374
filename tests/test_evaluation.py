import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest

from ssu_jax import checkpoint, evaluation
from ssu_jax.cli import main
from ssu_jax.config import sizes
from ssu_jax.data import pipeline, records
from ssu_jax.inference import loading, scoring
from ssu_jax.metrics import accumulate, report
from ssu_jax.models import decoding
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.types import Clip, SoundObject, UserError

CLASSES = ("bell", "drum")
SENTENCES = {
    "b": "The red bell on the left is ringing.",
    "d": "The blue drum on the right is beating.",
    "2": "The red bell on the left is ringing and the blue drum on the right is beating.",
}
SIZE = 48  # of the records: not the model's, so that masks have to be resized


def make_clip(sounding: str, number: int) -> Clip:
    """A bell left, a drum right, in view; letters: b bell, d drum, 2 both, o drum off screen, s silence, x padding."""
    t = len(sounding)
    bell, drum = np.zeros((2, t, SIZE, SIZE), bool)
    bell[:, 6 : 18 + number, 6:18] = True
    drum[:, 24:42, 30 : 42 - number % 3] = True
    frames = np.zeros((t, SIZE, SIZE, 3), np.uint8)
    # The pictures tell the stub model which record and second it sees.
    frames[..., 0], frames[..., 1] = 20 * number, (20 * np.arange(t))[:, None, None]
    flags = {kind: np.array([letter in letters for letter in sounding]) for kind, letters in
             (("bell", "b2"), ("drum", "d2"), ("far", "o"))}  # fmt: skip
    objects = [SoundObject("bell", flags["bell"], True, bell), SoundObject("drum", flags["drum"], True, drum)]
    if flags["far"].any():
        objects.append(SoundObject("drum", flags["far"], False))
    return Clip(
        id=f"clip-{number}",
        frames=frames,
        frame_times=np.arange(t) + 0.5,
        sound=np.zeros(16000 * t, np.int16),
        sample_rate=16000,
        valid=np.array([letter != "x" for letter in sounding]),
        captions=tuple(SENTENCES.get(letter, "") for letter in sounding),
        objects=tuple(objects),
    )


KINDS = ("bd2s", "ossb", "2bxx", "dddo", "sbds", "b22x")


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("records")
    clips = [make_clip(kind, number) for number, kind in enumerate(KINDS)]
    records.write_split(folder, "test", clips, 2, classes=CLASSES, source={"made": "by hand"})
    return str(folder)


@pytest.fixture(scope="module")
def config():
    config = sizes.tiny()
    config.data.classes = CLASSES
    return config


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([*SENTENCES.values(), "The dog is barking."], 40)


class Oracle:
    """Answers with the truth of the records that it recognizes by their pictures, or with what `change` makes of it."""

    def __init__(self, config, tokenizer, directory, change=lambda probabilities, ids: (probabilities, ids)):
        batch = next(pipeline.eval_batches(config, tokenizer, "test", len(KINDS), 0, directory))
        self._probabilities, self._ids, self._change = batch.masks.astype(np.float32), batch.text_ids, change
        self.calls = 0

    def __call__(self, params, frames, log_mel, frame_valid):
        self.calls += 1
        record = np.rint(frames[:, 0, 0, 0, 0] / 20).astype(int)
        return self._change(self._probabilities[record], self._ids[record])


@pytest.fixture
def scored(config, tokenizer, directory):
    def run(change=None, batch_size=4, **options):
        describe = Oracle(config, tokenizer, directory, *([change] if change else []))
        options = {"directory": directory, "split": "test", "batch_size": batch_size, **options}
        return evaluation.evaluate(describe, None, config, tokenizer, **options)

    return run


def _nothing(probabilities, ids):
    silent = np.zeros_like(ids)
    silent[..., 0], silent[..., 1] = 1, 2
    return np.zeros_like(probabilities), silent


def _noisy(probabilities, ids):
    rng = np.random.default_rng(int(probabilities.sum()))
    probabilities = np.clip(probabilities + rng.normal(0, 0.4, probabilities.shape), 0, 1).astype(np.float32)
    return probabilities, ids


def test_the_truth_scores_one(scored):
    metrics = scored()
    for name in accumulate.SCORES:
        assert metrics[name] == pytest.approx(10 if name == "cider" else 1, abs=0.08 if name == "miou" else 0.05), name
    assert metrics["num_clips"] == 6
    assert metrics["num_frames"] == 21  # three are padding
    assert metrics["num_silent_frames"] == 5
    assert metrics["num_offscreen_frames"] == 2
    assert metrics["num_sounding_frames"] == 14
    assert metrics["exact_match"] == metrics["silent_accuracy"] == metrics["offscreen_accuracy"] == 1


def test_the_truth_scores_exactly_one_where_no_mask_is_resized(config, tokenizer, tmp_path):
    clip = make_clip("bd2s", 0)
    shrunk = [SoundObject(o.name, o.sounding, True, o.masks[:, ::2, ::2]) for o in clip.objects]
    small = Clip(**{**vars(clip), "frames": clip.frames[:, ::2, ::2], "objects": tuple(shrunk)})
    config24 = sizes.tiny()
    config24.data.classes, config24.data.image_size = CLASSES, 24
    records.write_split(tmp_path, "test", [small] * 2, 1, classes=CLASSES, source={})
    batch = next(pipeline.eval_batches(config24, tokenizer, "test", 2, 0, str(tmp_path)))
    answer = (batch.masks.astype(np.float32), batch.text_ids)
    metrics = evaluation.evaluate(
        lambda *_: answer, None, config24, tokenizer, directory=str(tmp_path), split="test", batch_size=2
    )
    assert metrics["miou"] == metrics["f_score"] == metrics["exact_match"] == 1
    assert metrics["offscreen_accuracy"] is None  # no such frames


def test_silence_everywhere(scored):
    metrics = scored(_nothing)
    assert metrics["silent_accuracy"] == metrics["offscreen_accuracy"] == 1
    assert metrics["miou"] == metrics["f_score"] == metrics["exact_match"] == metrics["meteor"] == 0
    assert metrics["bleu_4"] == pytest.approx(0, abs=1e-6)


def test_a_word_in_silence_is_wrong(scored, tokenizer):
    def talks(probabilities, ids):
        ids = ids.copy()
        ids[ids[..., 1] == 2] = tokenizer.encode("The dog is barking.", ids.shape[-1])
        return probabilities, ids

    metrics = scored(talks)
    assert metrics["silent_accuracy"] == metrics["offscreen_accuracy"] == 0
    assert metrics["exact_match"] == 1  # of sounding frames


def test_batch_size_changes_no_bit(scored):
    # The noise is keyed by content, so the stub answers alike only one clip at a time.
    def noisy(probabilities, ids):
        return np.stack([_noisy(one, ids)[0] for one in probabilities]), ids

    one, other = scored(noisy, batch_size=1), scored(noisy, batch_size=5)
    for metrics in (one, other):
        assert metrics.pop("batch_size") in (1, 5)
    assert one == other
    assert 0 < one["miou"] < 1


def test_avsbench_depends_on_the_batch_size(scored):
    def uneven(probabilities, ids):
        # Clips want different thresholds: a wrong pixel column at a level that depends on the clip.
        level = 0.2 + 0.6 * (probabilities.sum((1, 2, 3), keepdims=True) % 7) / 7
        probabilities = probabilities * level
        probabilities[..., 0] = level[..., 0] * 0.9
        return probabilities.astype(np.float32), ids

    one, four = (scored(uneven, batch_size=size, protocol="avsbench") for size in (1, 6))
    assert one["f_score"] != four["f_score"]
    assert one["f_score"] > four["f_score"]  # a threshold a clip is at least as good as one for all
    assert one["bleu_4"] == four["bleu_4"]
    assert one["miou_low"] is None
    assert one["class/bell/miou"] is None
    assert 0 < one["baseline/picture_only/f_score"] < 1
    assert "AVSBench" in report.table(one)


def test_rows_intervals_and_baselines(scored):
    metrics = scored(_noisy)
    assert metrics["miou_low"] <= metrics["miou"] <= metrics["miou_high"]
    assert metrics["class/bell/num_frames"] == 9
    assert metrics["sources/2/num_frames"] == 4
    total = sum(metrics[f"sources/{n}/miou"] * metrics[f"sources/{n}/num_frames"] for n in (1, 2))
    assert total / 14 == pytest.approx(metrics["miou"])
    assert metrics["baseline/sound_only/silent_accuracy"] == 1
    assert metrics["baseline/sound_only/offscreen_accuracy"] == 0
    assert metrics["baseline/picture_only/silent_accuracy"] == 0
    assert 0.3 < metrics["baseline/picture_only/miou"] < 0.8
    assert metrics["baseline/commonest/miou"] is None
    assert all(value is None or isinstance(value, float | int | str) for value in metrics.values())
    json.dumps(metrics, allow_nan=False)
    table = report.table(metrics)
    assert "class bell" in table
    assert "sound only" in table
    assert max(map(len, table.splitlines())) <= 120


def test_training_goes_without_details(scored):
    metrics = scored(details=False)
    assert not [name for name in metrics if "/" in name or name.endswith(("_low", "_high"))]
    detailed = scored()
    assert {name: detailed[name] for name in metrics} == metrics
    assert "class bell" not in report.table(metrics)


@pytest.mark.parametrize(("switch", "missing"), [("seg_only", "meteor"), ("text_only", "miou")])
def test_a_missing_half_is_null(switch, missing, tokenizer, directory):
    config = sizes.tiny()
    config.data.classes = CLASSES
    setattr(config.model, switch, True)

    def without(probabilities, ids):
        return (probabilities, ids * 0) if switch == "seg_only" else (probabilities * 0, ids)

    describe = Oracle(config, tokenizer, directory, without)
    metrics = evaluation.evaluate(
        describe, None, config, tokenizer, directory=directory, split="test", batch_size=3, protocol="avsbench"
    )
    assert metrics[missing] is None
    assert metrics["silent_accuracy"] == 1
    assert metrics["exact_match" if switch == "text_only" else "miou"] > 0.9


def test_the_first_clips_only_and_progress(scored):
    steps = []
    metrics = scored(num_clips=3, batch_size=2, progress=lambda done, total: steps.append((done, total)))
    assert metrics["num_clips"] == 3
    assert steps == [(2, 3), (3, 3)]


def test_user_mistakes(scored, directory):
    with pytest.raises(UserError, match="no split 'nosuch'"):
        scored(split="nosuch")
    with pytest.raises(UserError, match="protocol"):
        scored(protocol="best")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, config, tokenizer) -> pathlib.Path:
    import jax

    folder = tmp_path_factory.mktemp("model")
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), loading.parameter_shapes(config))
    checkpoint.write_folder(folder, checkpoint.Model(config, tokenizer, params), "float32", {"step": 7})
    return folder


def test_program_writes_metrics_and_table(model_folder, directory, tmp_path, capsys):
    out = tmp_path / "deep" / "metrics.json"
    arguments = ["evaluate", "--checkpoint", str(model_folder), "--records", directory, "--out", str(out)]
    assert main.main([*arguments, "--no-compile-cache", "--num-clips", "2", "--batch-size", "2"]) == 0
    metrics = json.loads(out.read_text())
    assert metrics["num_clips"] == 2
    assert metrics["step"] == 7
    contract = {*accumulate.SCORES, "num_clips"}
    assert contract == {"miou", "f_score", "exact_match", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor",
                        "cider", "silent_accuracy", "offscreen_accuracy", "num_clips"}  # fmt: skip
    assert contract <= set(metrics)
    printed = capsys.readouterr()
    assert "mIoU" in printed.out
    assert printed.err == ""  # no bar where no terminal is


def test_program_without_out_writes_beside_the_checkpoint(model_folder, directory, tmp_path, monkeypatch, capsys):
    digest = records.RecordSource(directory, "test").digest[:12]
    monkeypatch.setattr(decoding, "make_describe", lambda model: _silent_model)  # nothing to compile
    place = scoring.score_checkpoint(str(model_folder), directory, "test", num_clips=1)
    assert place == model_folder / f"metrics-{digest}-test-first1.json"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: pathlib.Path(path) != model_folder)
    place = scoring.score_checkpoint(str(model_folder), directory, "test", num_clips=1, protocol="avsbench")
    assert place == tmp_path / f"metrics-{digest}-test-avsbench-first1.json"
    assert "cannot be written" in capsys.readouterr().err


def test_program_prints_ours_beside_the_paper_s(model_folder, directory, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(decoding, "make_describe", lambda model: _silent_model)
    out, earlier = tmp_path / "metrics.json", tmp_path / "earlier.json"
    arguments = ["evaluate", "--checkpoint", str(model_folder), "--records", directory, "--out", str(out)]
    assert main.main([*arguments, "--num-clips", "1", "--table"]) == 0
    metrics, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert (metrics["row"], metrics["dataset"]) == ("mohe", "")
    assert "SSU-S (masks only)" in printed
    assert f"records {metrics['records_digest'][:12]}: not known to be the paper's data" in printed
    assert "ours: mohe (tiny, step 7, 1 clips of test)" in printed
    earlier.write_text(json.dumps(metrics | {"dataset": "f-Lifescene", "row": "baseline", "model": "older"}))
    assert main.main(["evaluate", "--table", "ssuformer", "--metrics", str(out), str(earlier)]) == 0
    printed = capsys.readouterr().out
    assert printed.index("Baseline") < printed.rindex("ours: baseline (older, step 7") < printed.index("+ Focal")
    assert "ours: mohe (tiny" in printed
    assert "silent accuracy" not in printed  # nothing is evaluated
    assert main.main(["evaluate", "--table", "tvsl"]) == 0
    assert "MUSIC, duets" in capsys.readouterr().out


def test_program_scores_late_fusion_in_the_same_table(shared, directory, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSU_WEIGHTS_DIR", str(tmp_path / "cache"))
    no_facts = np.zeros((1, 10, 29), np.int32)
    monkeypatch.setattr(
        decoding, "make_describe", lambda _: lambda params, frames, *_: (np.zeros(frames.shape[:-1]), no_facts)
    )
    out, weights = tmp_path / "metrics.json", shared / "data" / "weights" / "tflite"
    arguments = ["evaluate", "--records", directory, "--num-clips", "2", "--out", str(out), "--table"]
    assert main.main([*arguments, "--model", "late_fusion"]) == 2
    assert "ssu weights get yamnet deeplab_v3" in capsys.readouterr().err
    assert main.main([*arguments, "--weights-dir", str(weights)]) == 0
    metrics = json.loads(out.read_text())
    assert (metrics["model"], metrics["row"], metrics["miou"]) == ("late_fusion", "late_fusion", 0.0)
    assert 0 < metrics["num_silent_frames"] < metrics["num_frames"]
    assert "ours: late_fusion" in capsys.readouterr().out


def test_program_refuses_what_is_no_evaluation_before_it_evaluates(model_folder, directory, tmp_path, capsys):
    (tmp_path / "text.json").write_text("hello")
    (tmp_path / "other.json").write_text('{"miou": 1}')
    for name, said in (("text.json", "no JSON file"), ("other.json", "holds no scores"), ("absent", "cannot be read")):
        out = tmp_path / "out.json"
        arguments = ["--records", directory, "--checkpoint", str(model_folder), "--out", str(out)]
        assert main.main(["evaluate", "--table", "--metrics", str(tmp_path / name), *arguments]) == 2
        assert said in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.parametrize("arguments", [[], ["--checkpoint", "runs/nano"], ["--checkpoint", "runs/nano", "--table"]])
def test_program_asks_for_records(arguments, capsys):
    assert main.main(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err
    assert "--records is missing" in error
    assert error.count("\n") == 1


def test_records_of_the_built_in_world_say_so(config, tokenizer, tmp_path):
    clips = [dataclasses.replace(make_clip("bd", 0), dataset="synthetic")]
    records.write_split(tmp_path, "test", clips, 1, classes=CLASSES, source={"made": "by hand"})
    describe = Oracle(config, tokenizer, str(tmp_path))
    metrics = evaluation.evaluate(
        describe, None, config, tokenizer, directory=str(tmp_path), split="test", batch_size=1, details=False
    )
    assert metrics["dataset"] == "synthetic"


def _silent_model(params, frames, log_mel, frame_valid):
    return np.zeros(frames.shape[:-1], np.float32), np.zeros((*frame_valid.shape, 28), np.int32)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"--records": "nowhere"}, "no directory nowhere"),
        ({"--split": "nosuch"}, "no split 'nosuch'"),
        ({"--checkpoint": "nothing"}, "does not exist"),
        ({"--batch-size": "0"}, "--batch-size"),
        ({"--num-clips": "-1"}, "--num-clips"),
        ({"--out": "."}, "folder"),
        ({"--protocol": "best"}, "invalid choice"),
    ],
)
def test_program_names_the_mistake(changes, wanted, model_folder, directory, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = {"--checkpoint": str(model_folder), "--records": directory, **changes}
    assert main.main(["evaluate", "--no-compile-cache", *(part for pair in options.items() for part in pair)]) == 2
    complaint = capsys.readouterr().err
    assert wanted in complaint
    assert len(complaint.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
