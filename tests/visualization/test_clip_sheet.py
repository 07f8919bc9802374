"""The page of a clip: each thing in its class's colour where it is, and what is not known not drawn."""

import colorsys
import dataclasses

import numpy as np
import pytest
import small_clips

from ssu_jax.visualization import clip_sheet, pictures

COLOURS = {"bell": (250, 10, 20), "drum": (20, 240, 30), "siren": (40, 50, 255)}
SCALE = clip_sheet.CELL_WIDTH // 16


def grey(clip):
    return dataclasses.replace(clip, frames=np.full_like(clip.frames, 90), captions=("",) * len(clip.frames))


def picture_of(page, second, height=clip_sheet.CELL_WIDTH):
    """The picture inside the cell of a second of the first row; the page's last rows are those of the cells."""
    below = clip_sheet._METER + clip_sheet._LINE + clip_sheet._CAPTION + clip_sheet.GAP
    top = len(page) - below - height
    left = clip_sheet.GAP + second * (clip_sheet.CELL_WIDTH + clip_sheet.GAP)
    return page[top : top + height, left : left + clip_sheet.CELL_WIDTH]


def has(picture, colour):
    return (picture == colour).all(-1)


def test_what_sounds_is_filled_and_what_is_silent_dotted():
    page = clip_sheet.page(grey(small_clips.small_clip(0)), "a clip", COLOURS)
    first, second = picture_of(page, 0), picture_of(page, 1)
    bell = np.zeros((16, 16), bool)
    bell[4:8, 1:5] = True
    bell = bell.repeat(SCALE, 0).repeat(SCALE, 1)
    inside = np.zeros_like(bell)
    inside[5 * SCALE : 7 * SCALE, 2 * SCALE : 4 * SCALE] = True
    assert has(first, COLOURS["bell"])[4 * SCALE, SCALE : 5 * SCALE].all()  # outlined
    assert (first[inside] != 90).any()  # filled
    assert not has(first, COLOURS["bell"])[~bell].any()
    dots = has(second, COLOURS["bell"])  # silent in the second second
    assert (second[inside] == 90).all()
    assert 0.3 < dots[4 * SCALE, SCALE : 5 * SCALE].mean() < 0.7
    for picture in (first, second):
        assert has(picture, COLOURS["drum"]).sum() > 50
        assert not has(picture, COLOURS["siren"]).any()  # off screen: named, not drawn


def test_the_timeline_is_full_where_an_object_sounds():
    clip = small_clips.small_clip(0)
    page = clip_sheet.page(clip, "a clip", COLOURS)
    row = page[: len(page) - 300]
    halves = np.array_split(np.arange(clip_sheet._NAMES_WIDTH, page.shape[1]), 3)
    told = {name: [int(has(row[:, part], colour).sum()) for part in halves] for name, colour in COLOURS.items()}
    assert told["bell"][0] > 1000
    assert told["bell"][1:] == [0, 0]
    assert told["drum"] == [0, 0, 0]
    assert told["siren"][0] < 100 < min(told["siren"][1:])


def test_what_is_not_known_is_not_drawn():
    clip = grey(small_clips.small_clip(0))
    no = np.array([False, True, True])
    known = picture_of(clip_sheet.page(clip, "a clip", COLOURS), 0)
    unknown = picture_of(clip_sheet.page(dataclasses.replace(clip, masks_known=no), "a clip", COLOURS), 0)
    assert (known != 90).any()
    assert (unknown == 90).all()
    page = clip_sheet.page(dataclasses.replace(clip, sources_known=no), "a clip", COLOURS)
    assert 0.3 < has(picture_of(page, 0), COLOURS["bell"])[4 * SCALE, SCALE : 5 * SCALE].mean() < 0.7  # dotted


def test_boxes_are_drawn_where_there_are_any():
    clip = grey(small_clips.small_clip(0))
    boxes = np.array([[0.25, 0.5, 0.75, 1.0], [np.nan] * 4, [0.25, 0.5, 0.75, 1.0]], np.float32)
    bell = dataclasses.replace(clip.objects[0], masks=None, boxes=boxes)
    page = clip_sheet.page(dataclasses.replace(clip, objects=(bell,)), "a clip", COLOURS)
    rows, columns = np.nonzero(has(picture_of(page, 0), COLOURS["bell"]))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((120, 239, 60, 179), abs=1)
    assert not has(picture_of(page, 1), COLOURS["bell"]).any()
    thick, thin = (has(picture_of(page, second), COLOURS["bell"]).sum() for second in (0, 2))
    assert thick > 2 * thin > 0


@pytest.mark.parametrize(("t", "size"), [(1, 8), (5, 16), (6, 16), (40, 8)])
def test_clips_of_any_length_fit_a_page(t, size):
    page = clip_sheet.page(small_clips.small_clip(0, t=t, size=size), "x" * 500, COLOURS)
    rows = -(-t // clip_sheet.COLUMNS)
    assert page.shape[1] >= 3 * clip_sheet.CELL_WIDTH
    assert len(page) > rows * clip_sheet.CELL_WIDTH
    assert (page[:, -1] <= pictures.BACKGROUND_COLOUR).all()  # nothing runs over the edge


def test_classes_have_colours_of_their_own_that_never_change():
    names = [f"class {number}" for number in range(71)]
    colours = clip_sheet.class_colours(names)
    assert len(set(colours.values())) == 71
    assert clip_sheet.class_colours(names[:20]) == {name: colours[name] for name in names[:20]}
    assert all(max(colour) > 150 for colour in colours.values())  # bright on any picture
    hues = np.array([colorsys.rgb_to_hsv(*colours[name])[0] for name in names[:5]])
    apart = np.abs(hues[:, None] - hues)[~np.eye(5, dtype=bool)]
    assert np.minimum(apart, 1 - apart).min() > 0.1
