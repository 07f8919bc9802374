"""Place, colour and number of a source, by hand."""

import colorsys

import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.models.late_fusion import facts


def cells(*rows):
    return jnp.asarray([[[mark == "#" for mark in row] for row in rows]])


@pytest.mark.parametrize(
    ("row", "place"),
    [("##........", "left"), ("....##....", "middle"), ("........##", "right"), ("##......##", "middle"),
     ("..........", "middle"), ("..##......", "left"), ("......##..", "right")],
)  # fmt: skip
def test_place_is_that_of_the_centre(row, place):
    assert facts.PLACES[int(facts.place_of(cells(row, "." * 10))[0])] == place


@pytest.mark.parametrize(
    ("picture", "parts"),
    [
        (["....", "....", "...."], 0),
        (["##..", "##..", "...."], 1),
        (["##..", "##..", "..##"], 1),  # joined at a corner
        (["##.#", "##.#", "...."], 2),
        (["###.", "##..", "...#"], 1),  # less than a quarter of the largest is a speck
        (["#.#.", "....", "#.#."], 4),
        (["####", "#..#", "####"], 1),  # a ring
    ],
)
def test_parts_are_counted_and_specks_are_not(picture, parts):
    kept, count, largest = facts.parts_of(cells(*picture))
    assert count.tolist() == [parts]
    whole = np.asarray(cells(*picture))
    assert (np.asarray(kept) <= whole).all()
    assert kept.sum() == whole.sum() - (1 if picture[2] == "...#" and parts == 1 else 0)
    assert int(largest[0]) <= kept.sum()


def test_a_long_way_round_is_one_part():
    snake = ["#########", "........#", "#########", "#........", "#########"]
    _, count, largest = facts.parts_of(jnp.concatenate([cells(*snake), ~cells(*snake)]))
    assert count.tolist() == [1, 2]
    assert largest.tolist() == [29, 8]


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((0, 0, 0), "black"), ((250, 250, 250), "white"), ((128, 128, 128), "grey"), ((220, 20, 20), "red"),
     ((250, 140, 20), "orange"), ((240, 220, 30), "yellow"), ((110, 90, 10), "yellow"), ((30, 160, 40), "green"),
     ((40, 80, 220), "blue"), ((120, 30, 180), "purple"), ((240, 60, 170), "pink"), ((110, 65, 30), "brown"),
     ((240, 225, 205), "white")],
)  # fmt: skip
def test_colours_are_called_what_people_call_them(rgb, name):
    frame = jnp.full((1, 4, 4, 3), jnp.asarray(rgb, jnp.float32) / 255)
    number = int(facts.colour_of(frame, jnp.ones((1, 4, 4), bool), 0.5)[0])
    assert facts.COLOURS[number - 1] == name


def test_every_hue_is_the_circle_s():
    """Against colorsys: no gap and no overlap round the circle; full colours are neither grey nor brown."""
    hues = np.arange(0.0, 1.0, 1 / 96)
    frame = jnp.asarray([colorsys.hsv_to_rgb(hue, 1.0, 1.0) for hue in hues], jnp.float32)[None, None]
    names = [facts.COLOURS[number] for number in np.asarray(facts._colour_names(frame))[0, 0]]
    order = list(dict.fromkeys(names))
    assert order == ["red", "orange", "yellow", "green", "blue", "purple", "pink"]
    assert names[-1] == "red"


def test_only_what_dominates_inside_the_mask_is_named():
    frame = jnp.zeros((1, 1, 10, 3)).at[:, :, :6, 2].set(1.0).at[:, :, 6:, 0].set(1.0)
    mask = jnp.ones((1, 1, 10), bool)
    blue = 1 + facts.COLOURS.index("blue")
    assert facts.colour_of(frame, mask, 0.5).tolist() == [blue]
    assert facts.colour_of(frame, mask, 0.7).tolist() == [0]
    right = mask.at[:, :, :6].set(False)
    assert facts.colour_of(frame, right, 0.7).tolist() == [1 + facts.COLOURS.index("red")]
    assert facts.colour_of(frame, jnp.zeros_like(mask), 0.5).tolist() == [0]
