"""Pictures of experts: sizes that can be read, and colours where they belong."""

import numpy as np
import pytest

from ssu_jax.visualization import routing


def layer_of(num_experts: int, num_classes: int):
    groups = ["all", "kind/silence", *(f"class/class {n}" for n in range(num_classes))]
    words = [1000 * num_experts] * len(groups)
    lift = np.ones((len(groups), num_experts))
    lift[2, :2] = 8.0, 1 / 8
    layer = {
        "load": [1 / num_experts] * num_experts,
        "lift": lift.tolist(),
        "levels": {name: [0.1] * num_experts for name in ("token", "scene", "region", "frame")},
    }
    return groups, layer, words


def is_red(picture):
    return (picture[..., 0] > 90) & (picture[..., 1] < 30) & (picture[..., 2] < 50)


def is_blue(picture):
    return (picture[..., 0] < 20) & (picture[..., 1] > 35) & (picture[..., 1] < 60) & (picture[..., 2] > 85)


@pytest.mark.parametrize(("num_experts", "num_classes"), [(4, 14), (64, 61)])
def test_a_layer_fits_its_picture(num_experts, num_classes):
    groups, layer, words = layer_of(num_experts, num_classes)
    picture = routing.expert_use(groups, layer, words, "made up")
    assert picture.dtype == np.uint8
    height, width = picture.shape[:2]
    assert width >= max(700, 12 * num_experts)
    assert height >= 25 * num_classes
    assert (picture[:, -1] == 255).all()  # nothing runs over the edge
    assert (picture[-1] == 255).all()
    # Class 0 is eight times expert 0's and an eighth of expert 1's: red left of blue, in one row of the heat map.
    heat = picture[:, : int(0.85 * width)]
    (red_rows, red_columns), (blue_rows, blue_columns) = (np.nonzero(of(heat)) for of in (is_red, is_blue))
    assert len(red_rows) > 50
    assert len(blue_rows) > 50
    assert abs(np.median(red_rows) - np.median(blue_rows)) < 5
    assert np.median(red_columns) < np.median(blue_columns)


def test_cells_with_too_few_words_are_grey():
    groups, layer, words = layer_of(4, 2)
    few = routing.expert_use(groups, layer, [4000, 4000, 19, 4000], "made up")  # 19 / 4 words are expected of an expert
    many = routing.expert_use(groups, layer, words, "made up")
    heat = slice(0, int(0.8 * many.shape[1]))
    assert is_red(many[:, heat]).sum() > 500
    assert is_red(few[:, heat]).sum() == 0


def test_a_picture_of_unknown_and_negative_levels_is_drawn():
    groups, layer, words = layer_of(4, 2)
    layer["load"] = [0.5, 0.5, 0.0, 0.0]
    layer["lift"] = [[1.0, 1.0, None, None]] * 4
    layer["levels"]["token"] = [-0.3, 0.1, None, None]
    assert routing.expert_use(groups, layer, words, "made up").std() > 10


@pytest.mark.parametrize(("num_layers", "num_experts"), [(1, 4), (3, 64)])
def test_the_load_over_time_has_a_strip_a_layer(num_layers, num_experts):
    load = np.full((12, num_layers, num_experts), 1 / num_experts)
    load[6:, -1] = 0.0
    load[6:, -1, -1] = 1.0  # collapse: in the last layer the last expert has all from the middle on
    picture = routing.load_over_time([1, *range(20, 240, 20)], load)
    height, width = picture.shape[:2]
    assert height > 100 * num_layers
    inside = picture[:, : int(0.8 * width)]
    rows, columns = np.nonzero(is_blue(inside))
    assert rows.min() > height * (num_layers - 1) / num_layers * 0.8
    assert columns.min() > 0.4 * width
    assert routing.load_over_time([5], load[:1]).shape[1] == width  # one step is enough
