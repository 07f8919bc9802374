"""The notes that name sounds."""

from ssu_jax.inference.heard import Heard


def test_spans_seen_and_unseen_longest_first():
    heard = Heard()
    for second in range(13):
        heard.add(second, [("Speech", second < 11), *([("Music", False)] if second in (0, 3, 4) else [])])
    heard.add(13, [("Dog", False)])
    assert heard.notes() == [
        "heard, its source in the picture: Speech (0:00 to 0:13, seen in 11 of 13 s)",
        "heard, its source not found in the picture: Music (0:00 to 0:01, 0:03 to 0:05); Dog (0:13 to 0:14)",
    ]


def test_what_comes_and_goes_is_counted_and_costs_no_memory():
    heard = Heard()
    for second in range(0, 7200, 2):
        heard.add(second, [("Bark", True)])
    assert heard.notes() == ["heard, its source in the picture: Bark (3600 s in all)"]
    assert len(heard._sounds["Bark"].spans) == 3


def test_hours_and_nothing():
    assert Heard().notes() == []
    heard = Heard()
    heard.add(3700, [("Train", True)])
    assert heard.notes() == ["heard, its source in the picture: Train (1:01:40 to 1:01:41)"]
