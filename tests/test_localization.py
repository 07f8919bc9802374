"""Scores of heat maps over mixtures: answers made by hand, right, wrong and in the wrong order."""

import numpy as np
import pytest

from ssu_jax import localization
from ssu_jax.config import Config, sizes
from ssu_jax.types import Mixtures

SIDE = 16


def config(mode: str = "corrected") -> Config:
    made = sizes.tvsl()
    made.data.classes, made.tvsl.mode, made.tvsl.threshold = ("bell", "dog", "drum"), mode, 0.5
    return made


def mixtures(num: int = 2, filler: int = 1) -> Mixtures:
    """A bell on the left, a dog on the right, each a square of 8 x 8; no drum. The last rows fill the batch."""
    b = num + filler
    regions = np.zeros((b, 2, SIDE, 2 * SIDE), np.uint8)
    regions[:num, 0, 4:12, 4:12] = 1
    regions[:num, 1, 4:12, SIDE + 4 : SIDE + 12] = 1
    sources = np.tile(np.array([0, 1], np.int32), (b, 1))
    sources[num:] = -1
    present = np.tile(np.array([1, 1, 0], np.uint8), (b, 1))
    return Mixtures(
        pictures=np.zeros((b, SIDE, 2 * SIDE, 3), np.uint8),
        sound=np.zeros((b, 1, 96, 64), np.float32),
        sources=sources,
        regions=regions,
        region_known=sources >= 0,
        present=present,
        record=sources,
    )


def answering(batch: Mixtures, *, swapped=False, wrong_word=0.0, heard=(0.9, 0.9, 0.1), truth=0.9, asked=None):
    """A `locate` that lights the true regions (of the other source, `swapped`), and a wrong word everywhere."""

    def locate(params, pictures, sound, classes):
        if asked is not None:
            asked.append(classes)
        shown = batch.regions[:, ::-1] if swapped else batch.regions
        maps = np.concatenate([truth * shown, np.full_like(shown[:, :1], 1.0, dtype=float) * wrong_word], axis=1)
        return maps.astype(np.float32), np.tile(np.array(heard, np.float32), (len(classes), 1))

    return locate


def scored(mode="corrected", **answers):
    batch = mixtures()
    return localization.evaluate(answering(batch, **answers), {}, config(mode), [batch])


def test_right_answers_score_one_and_filler_rows_do_not_count():
    metrics = scored()
    for name in ("ciou@0.3", "iou", "ap", "cap", "piap", "found_ciou@0.5", "precision", "recall", "quiet"):
        assert metrics[name] == pytest.approx(1.0), name
    assert metrics["num_mixtures"] == 2
    assert metrics["num_sources"] == 4
    assert metrics["class/dog/ciou@0.3"] == 1.0
    assert "class/drum/ciou@0.3" not in metrics


def test_maps_in_the_wrong_order_are_right_for_piap_alone():
    metrics = scored(swapped=True)
    assert metrics["piap"] == pytest.approx(1.0)
    assert metrics["cap"] < 0.2
    assert metrics["ciou@0.1"] == 0.0


def test_what_is_not_detected_is_not_found_though_given_words_find_it():
    metrics = scored(heard=(0.9, 0.2, 0.8))
    assert metrics["ciou@0.3"] == 1.0
    assert metrics["found_ciou@0.3"] == 0.5
    assert metrics["precision"] == 0.5
    assert metrics["recall"] == 0.5


def test_a_wrong_word_is_quiet_below_two_percent_of_the_frame():
    asked: list = []
    assert scored(wrong_word=0.4, asked=asked)["quiet"] == 1.0
    assert asked[0][:2].tolist() == [[0, 1, 2], [0, 1, 2]]  # the drum is the class that is not there
    assert scored(wrong_word=0.9)["quiet"] == 0.0


def test_released_cuts_at_three_tenths_and_calls_the_mean_overlap_ciou():
    corrected, released = scored(truth=0.4), scored("released", truth=0.4)
    assert corrected["ciou@0.3"] == 0.0
    assert released["ciou@0.3"] == released["ciou@0.5"] == released["iou"] > 0.9
    half = mixtures()
    half.regions[:, :, :, ::2] = 0
    mean = localization.evaluate(answering(mixtures()), {}, config("released"), [half])
    assert mean["ciou@0.3"] == pytest.approx(0.5)


def test_sources_without_a_region_and_empty_sets_give_no_scores():
    batch = mixtures()._replace(region_known=np.zeros((3, 2), bool))
    metrics = localization.evaluate(answering(batch), {}, config(), [batch])
    assert metrics["ciou@0.3"] is metrics["ap"] is metrics["cap"] is None
    assert metrics["recall"] == 1.0
    assert localization.evaluate(answering(batch), {}, config(), [])["quiet"] is None


def test_maps_are_enlarged_between_their_centres():
    heat = np.zeros((1, 2, 2), np.float32)
    heat[0, 0, 0] = 1.0
    grown = localization.enlarged(heat, 8, 8)
    assert grown.shape == (1, 8, 8)
    assert grown[0, 0, 0] == 1.0
    assert grown[0, 7, 7] == 0.0
    assert localization.enlarged(heat, 8, 8, bicubic=True)[0, 0, 0] >= 1.0
