import numpy as np
import pytest

from ssu_jax.visualization import contact_sheet, pictures


@pytest.mark.parametrize(
    ("count", "most", "wanted"), [(10, 5, [1, 3, 5, 7, 9]), (3, 5, [0, 1, 2]), (4, 1, [2]), (1, 5, [0])]
)
def test_seconds_are_spread_evenly(count, most, wanted):
    assert contact_sheet.evenly(count, most) == wanted


def test_a_row_shows_the_mask_filled_and_the_truth_outlined():
    frame = np.full((150, 200, 3), 90, np.uint8)
    mask, true = np.zeros((2, 150, 200), bool)
    mask[20:60, 20:80] = True
    true[80:140, 100:180] = True
    row = contact_sheet.strip("clip", [frame, frame], [mask, mask & False], ["A dog.", ""], [None, true])
    height = contact_sheet.TITLE_HEIGHT + contact_sheet.CELL_HEIGHT + contact_sheet.CAPTION_HEIGHT
    assert row.shape == (height, 2 * contact_sheet.CELL_WIDTH, 3)
    top, left = contact_sheet.TITLE_HEIGHT, (contact_sheet.CELL_WIDTH - 200) // 2
    first = row[top : top + 150, left : left + 200]
    second = row[top : top + 150, contact_sheet.CELL_WIDTH + left : contact_sheet.CELL_WIDTH + left + 200]
    assert (first == pictures.draw_mask(frame, mask)).all()
    green = (second == pictures.TRUE_COLOUR).all(-1)
    assert green[80, 100:180].all()
    assert not green[85:135, 105:175].any()
    assert not green[:79].any()
    words = row[top + 150 :]
    assert (words[:, : contact_sheet.CELL_WIDTH] != words[:, contact_sheet.CELL_WIDTH :]).any()


def test_tall_and_wide_pictures_fit_a_cell_and_rows_of_any_length_a_page():
    tall, wide = np.full((720, 300, 3), 200, np.uint8), np.full((90, 1280, 3), 200, np.uint8)
    rows = [
        contact_sheet.strip("one", [one], [np.zeros(one.shape[:2], bool)], [""], [None]) for one in (tall, wide)
    ] + [contact_sheet.strip("two", [wide] * 2, [np.zeros((90, 1280), bool)] * 2, [""] * 2, [None] * 2)]
    page = contact_sheet.stacked(rows)
    assert page.shape == (sum(len(row) + 4 for row in rows), 2 * contact_sheet.CELL_WIDTH, 3)
    # All of a tall picture is shown: bright from the first row of its cell to the last.
    column = page[contact_sheet.TITLE_HEIGHT :, contact_sheet.CELL_WIDTH // 2, 0][: contact_sheet.CELL_HEIGHT]
    assert (column == 200).all()
