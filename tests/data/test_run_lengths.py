"""Masks survive pycocotools' run lengths, and nothing else is read as a mask."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from ssu_jax.data import run_lengths


def test_worked_by_hand():
    # Two rows, three columns; column after column 0 1, 1 1, 0 0: runs of one 0, three 1, two 0.
    mask = np.array([[[0, 1, 0], [1, 1, 0]]], bool)
    assert run_lengths.encode(mask) == [b"132"]
    np.testing.assert_array_equal(run_lengths.decode([b"132"], 2, 3), mask)
    # The fourth run is the difference from the second: 1 - 3 = -2, five bits 30, letter "N".
    assert run_lengths.decode([b"132N"], 7, 1)[0, :, 0].tolist() == [0, 1, 1, 1, 0, 0, 1]


@given(arrays.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))))
@settings(deadline=None, max_examples=150)
def test_equal_to_pycocotools(masks):
    counts = run_lengths.encode(masks)
    size = list(masks.shape[1:])
    theirs = coco.decode([{"size": size, "counts": item} for item in counts]).transpose(2, 0, 1)
    np.testing.assert_array_equal(run_lengths.decode(counts, *size), theirs)
    np.testing.assert_array_equal(theirs, masks)


def test_large_masks_empty_masks_and_none():
    masks = np.zeros((3, 1080, 1920), bool)
    masks[1] = True
    masks[2, 500:900, 3:1500] = True
    np.testing.assert_array_equal(run_lengths.decode(run_lengths.encode(masks), 1080, 1920), masks)
    assert run_lengths.decode([], 5, 6).shape == (0, 5, 6)


@pytest.mark.parametrize(
    "bad", [b"", b"1", b"133", b"132N", b"6o", b"o" * 40 + b"0", b"\xff" * 9, b"!6", b"1O6", b"13\x002"]
)
def test_what_is_no_mask_is_refused(bad):
    with pytest.raises(ValueError, match="run length"):
        run_lengths.decode([b"132", bad, b"6"], 2, 3)


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=4))
@settings(deadline=None, max_examples=500)
def test_any_bytes_are_a_mask_or_refused(counts):
    try:
        masks = run_lengths.decode(counts, 3, 4)
    except ValueError:
        return
    assert masks.shape == (len(counts), 3, 4)
