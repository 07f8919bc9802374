"""The printed table and the published rows."""

import pytest

from ssu_jax.config import sizes
from ssu_jax.profiling import report
from ssu_jax.profiling.table import scaled, table
from ssu_jax.types import UserError

PROGRAM = {
    "frames": 10,
    "per_sample": 2_600_000_000,
    "per_frame": 260_000_000,
    "published_per_sample": 2_500_000_000,
    "published_per_frame": 250_000_000,
    "by_kind": {"matmul": 2_000_000_000, "convolution": 500_000_000, "elementwise": 100_000_000},
    "loops_at_bound": 1,
    "loops_counted_once": 0,
    "uncounted": [],
}
PLAN = {"source": "compiler's plan", "arguments": 1 << 20, "outputs": 1 << 10, "temporaries": 3 << 29,
        "peak": 1 << 31, "device_peak": None}  # fmt: skip
RESULT = {
    "name": "nano",
    "parameters": {
        "total": 3_000_000, "trainable": 1_500_000, "active": 2_000_000,
        "by_module": {"visual_encoder": 2_000_000, "text_decoder": 1_000_000}, "apart": {"clip_text": 63_000_000},
    },
    "flops": {"max_text_tokens": 32, "prediction": PROGRAM, "training_step": {**PROGRAM, "loops_counted_once": 2}},
    "speed": {"prediction": {"frames": 10, "seconds_per_sample": 0.125, "frames_per_second": 80.0, "repeats": 5,
                             "fastest_seconds": 0.12, "slowest_seconds": 0.2, "longest_sentence": 32}},
    "memory": {"prediction": PLAN, "process_peak": 5 << 30},
    "compile_seconds": {"prediction": 12.34},
    "peers": [{"encoder": "pvt_v2_b5", "input": [10, 224, 224, 3], "seconds": {"ours": 1.5, "theirs": 2.0},
               "ratio": 0.75, "ratio_of_fastest": 0.7, "parameters": {"ours": 81_960_000, "theirs": 81_960_000},
               "versions": {"torch": "2.13.0", "transformers": "5.23.0"}}],
    "device": {"platform": "cpu", "kind": "cpu", "processor": "Some CPU", "cores": 2},
    "versions": {"jax": "0.10.2"},
}  # fmt: skip


def test_ours_stands_above_the_published_rows_in_their_columns():
    lines = table(RESULT).splitlines()
    assert lines[0].split() == ["model", "params", "FPS", "FLOPs", "s/sample"]
    assert lines[1].split() == ["nano,", "here", "3.00M", "80.00", "2.50G", "0.125"]
    assert "RA-SSU (SSUFormer)       319.62M     84.83     1.60T     0.117" in lines
    assert "PG-Video-LLaVA             6.76B    475.81     1.32T     0.635" in lines
    assert any("Hardware and input size are not stated" in line for line in lines)


@pytest.mark.parametrize(
    "line",
    [
        "  visual_encoder               2,000,000    66.7%",
        "  total                        3,000,000",
        "  trainable                    1,500,000    50.0%",
        "  active                       2,000,000    66.7%",
        "  clip_text                   63,000,000   counted apart",
        "  matmul + convolution             2.50G           2.50G",
        "  training step: loops of unknown length, counted once: 2",
        "  weights are random: the longest sentence ran to 32 tokens",
        "memory of the prediction: 2.00 GiB by the compiler's plan "
        "(arguments 1.0 MiB, temporaries 1.50 GiB, outputs 0.0 MiB)",
        "compiling, in no time above: prediction 12.3 s",
        "  pvt_v2_b5                             1.500     2.000    0.75     0.70    81.96M",
        "cpu (cpu; Some CPU, 2 cores), jax 0.10.2",
    ],
)  # fmt: skip
def test_what_lies_behind_the_columns(line):
    assert line in table(RESULT).splitlines()


def test_what_was_not_asked_for_is_a_dash_and_no_section():
    text = table({"name": "nano", **{part: RESULT[part] for part in ("parameters", "device", "versions")}})
    assert text.splitlines()[1].split() == ["nano,", "here", "3.00M", "-", "-", "-"]
    assert "FLOPs of one sample" not in text
    assert "compiling" not in text


def test_the_published_rows_agree_with_themselves():
    rows = {row["model"]: row for row in report.published()["rows"]}
    assert len(rows) == 6
    for name in ("AVSBench", "AVIS", "RA-SSU (SSUFormer)"):
        row = rows.pop(name)
        assert row["frames_per_second"] * row["seconds_per_sample"] == pytest.approx(10, rel=0.04)
    for row in rows.values():
        assert 236 <= row["frames_per_second"] * row["seconds_per_sample"] <= 381


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0"), (999, "999"), (1000, "1.00k"), (319_620_000, "319.62M"), (1.596e12, "1.60T")],
)
def test_scaled(number, text):
    assert scaled(number) == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"only": ["parameters", "flop"]}, "--only: 'flop' is none of parameters, flops, speed, memory"),
        ({"only": []}, "--only: '' is none of"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
        ({"repeats": 0}, "--repeats must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named_before_any_work(arguments, said):
    with pytest.raises(UserError, match=said):
        report.profile(sizes.tiny(), **arguments)
