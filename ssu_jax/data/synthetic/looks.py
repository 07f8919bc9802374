"""How each class looks: a silhouette of its own and inner details; the colour is free (our design).

A look is a list of layers, painted in order: (shape, tone). Tones: "main" is the object's colour, "shade" a darker
main, "ink" the details, "glint" small light spots.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ssu_jax.data.synthetic.drawing import Plane, box, circle, coverage, ellipse, line, polygon, ring, union

REACH = 1.12  # farthest extent of a look, in halves of its box

# Far apart in every pair, also after JPEG and a tenth more or less of brightness and contrast.
COLOURS = {
    "black": (20, 20, 24),
    "blue": (30, 70, 220),
    "cyan": (60, 205, 215),
    "green": (35, 150, 45),
    "purple": (170, 45, 190),
    "red": (215, 35, 35),
    "white": (240, 240, 240),
    "yellow": (240, 212, 35),
}
INK = (28, 28, 32)
GLINT = (250, 250, 250)
# On these two the usual details would not be seen.
TONES = {
    "black": {"shade": (62, 62, 66), "ink": (175, 175, 178), "glint": (205, 205, 208)},
    "white": {"shade": (186, 186, 190), "glint": (150, 150, 155)},
}


def tones(colour: str) -> dict[str, np.ndarray]:
    """RGB of every tone of an object of this colour, float64 [3] each."""
    main = np.array(COLOURS[colour], np.float64)
    table = {"main": main, "shade": main * 0.7, "ink": INK, "glint": GLINT} | TONES.get(colour, {})
    return {tone: np.asarray(value, np.float64) for tone, value in table.items()}


@functools.cache
def box_area(name: str) -> float:
    """Area of the silhouette in squares of half its box."""
    grid = (np.arange(240) + 0.5) / 100 - 1.2
    at = Plane(*np.meshgrid(grid, grid))
    return float((union(*(shape for shape, _ in LOOKS[name](at))) <= 0).sum()) / 100**2


def banjo(at: Plane) -> list:
    return [
        (line(at, (0.12, 0.1), (0.62, -0.82), 0.24), "main"),
        (polygon(at, (0.42, -0.78), (0.66, -1.05), (0.9, -0.92), (0.72, -0.62)), "shade"),
        (circle(at, -0.22, 0.42, 0.62), "main"),
        (ring(at, -0.22, 0.42, 0.52, 0.1), "ink"),
        (line(at, (-0.38, 0.72), (0.6, -0.8), 0.07), "ink"),
        (line(at, (-0.56, 0.62), (-0.2, 0.84), 0.1), "ink"),
    ]


def bell(at: Plane) -> list:
    body = polygon(at, (-0.28, -0.72), (0.28, -0.72), (0.5, -0.35), (0.58, 0.25), (0.92, 0.62), (-0.92, 0.62),
                   (-0.58, 0.25), (-0.5, -0.35))  # fmt: skip
    return [
        (ring(at, 0.0, -0.85, 0.17, 0.14), "main"),
        (circle(at, 0.0, 0.74, 0.24), "ink"),
        (body, "main"),
        (line(at, (-0.62, 0.32), (0.62, 0.32), 0.1), "ink"),
        (line(at, (-0.3, -0.4), (-0.36, 0.1), 0.1), "glint"),
    ]


def bird(at: Plane) -> list:
    return [
        (polygon(at, (-0.45, 0.05), (-1.08, -0.32), (-1.0, 0.32)), "shade"),
        (polygon(at, (0.72, -0.62), (1.1, -0.36), (0.7, -0.2)), "ink"),
        (line(at, (-0.08, 0.55), (-0.14, 0.98), 0.09), "ink"),
        (line(at, (0.2, 0.55), (0.2, 0.98), 0.09), "ink"),
        (ellipse(at, 0.0, 0.18, 0.72, 0.52), "main"),
        (circle(at, 0.5, -0.4, 0.37), "main"),
        (ellipse(at, -0.18, 0.18, 0.36, 0.2), "shade"),
        (circle(at, 0.58, -0.46, 0.1), "ink"),
    ]


def clock(at: Plane) -> list:
    return [
        (line(at, (-0.45, 0.7), (-0.66, 1.02), 0.16), "ink"),
        (line(at, (0.45, 0.7), (0.66, 1.02), 0.16), "ink"),
        (circle(at, -0.5, -0.72, 0.27), "shade"),
        (circle(at, 0.5, -0.72, 0.27), "shade"),
        (circle(at, 0.0, 0.06, 0.86), "main"),
        (ring(at, 0.0, 0.06, 0.8, 0.12), "ink"),
        (line(at, (0.0, 0.06), (0.0, -0.48), 0.11), "ink"),
        (line(at, (0.0, 0.06), (0.4, 0.24), 0.11), "ink"),
    ]


def cricket(at: Plane) -> list:
    return [
        (line(at, (0.72, -0.05), (1.04, -0.72), 0.07), "ink"),
        (line(at, (0.25, 0.2), (0.42, 0.68), 0.11), "shade"),
        (line(at, (0.55, 0.2), (0.8, 0.66), 0.11), "shade"),
        (ellipse(at, -0.12, 0.1, 0.92, 0.31), "main"),
        (circle(at, 0.72, 0.02, 0.3), "main"),
        (line(at, (-0.1, 0.2), (-0.62, -0.66), 0.26), "main"),
        (line(at, (-0.62, -0.66), (-1.0, 0.68), 0.14), "shade"),
        (line(at, (-0.62, 0.2), (0.3, 0.2), 0.07), "ink"),
        (circle(at, 0.8, -0.04, 0.1), "ink"),
    ]


def dog(at: Plane) -> list:
    return [
        (ellipse(at, -0.78, -0.12, 0.28, 0.64), "shade"),
        (ellipse(at, 0.78, -0.12, 0.28, 0.64), "shade"),
        (ellipse(at, 0.0, -0.15, 0.7, 0.72), "main"),
        (ellipse(at, 0.0, 0.5, 0.46, 0.44), "main"),
        (ellipse(at, 0.0, 0.3, 0.2, 0.15), "ink"),
        (line(at, (0.0, 0.4), (0.0, 0.68), 0.07), "ink"),
        (line(at, (-0.2, 0.7), (0.2, 0.7), 0.08), "ink"),
        (circle(at, -0.28, -0.22, 0.12), "ink"),
        (circle(at, 0.28, -0.22, 0.12), "ink"),
    ]


def drum(at: Plane) -> list:
    body = union(box(at, (-0.8, 0.8), (-0.3, 0.58)), ellipse(at, 0.0, 0.58, 0.8, 0.3))
    return [
        (line(at, (-0.98, -1.0), (-0.25, -0.42), 0.13), "ink"),
        (line(at, (0.98, -1.0), (0.25, -0.42), 0.13), "ink"),
        (body, "main"),
        (ellipse(at, 0.0, -0.3, 0.8, 0.27), "ink"),
        (ellipse(at, 0.0, -0.31, 0.66, 0.17), "glint"),
        (line(at, (-0.76, 0.1), (-0.4, 0.72), 0.08), "ink"),
        (line(at, (-0.4, 0.72), (0.0, 0.16), 0.08), "ink"),
        (line(at, (0.0, 0.16), (0.4, 0.72), 0.08), "ink"),
        (line(at, (0.4, 0.72), (0.76, 0.1), 0.08), "ink"),
    ]


def flute(at: Plane) -> list:
    start, stop = (-0.66, 0.86), (0.66, -0.86)
    holes = [(circle(at, u, -u * 0.86 / 0.66, 0.1), "ink") for u in (-0.46, -0.26, -0.06, 0.14)]
    return [
        (line(at, start, stop, 0.42), "main"),
        (line(at, (0.3, -0.62), (0.62, -0.38), 0.1), "ink"),
        *holes,
    ]


def frog(at: Plane) -> list:
    return [
        (ellipse(at, -0.76, 0.66, 0.34, 0.24), "shade"),
        (ellipse(at, 0.76, 0.66, 0.34, 0.24), "shade"),
        (ellipse(at, 0.0, 0.2, 0.9, 0.6), "main"),
        (circle(at, -0.5, -0.42, 0.34), "main"),
        (circle(at, 0.5, -0.42, 0.34), "main"),
        (circle(at, -0.5, -0.46, 0.2), "glint"),
        (circle(at, 0.5, -0.46, 0.2), "glint"),
        (circle(at, -0.5, -0.46, 0.11), "ink"),
        (circle(at, 0.5, -0.46, 0.11), "ink"),
        (np.maximum(ring(at, 0.0, -0.12, 0.6, 0.1), 0.2 - at.v), "ink"),
    ]


def horn(at: Plane) -> list:
    return [
        (circle(at, -0.72, 0.22, 0.36), "ink"),
        (line(at, (-0.5, 0.16), (0.1, 0.0), 0.26), "main"),
        (polygon(at, (-0.2, -0.06), (0.5, -0.34), (0.98, -0.86), (1.06, 0.7), (0.6, 0.3), (-0.15, 0.2)), "main"),
        (line(at, (0.98, -0.82), (1.05, 0.66), 0.11), "ink"),
        (ring(at, -0.1, 0.42, 0.3, 0.14), "shade"),
    ]


def motor(at: Plane) -> list:
    return [
        (box(at, (-0.72, -0.4), (0.55, 0.9)), "ink"),
        (box(at, (0.25, 0.57), (0.55, 0.9)), "ink"),
        (box(at, (0.6, 1.1), (-0.1, 0.12)), "shade"),
        (box(at, (-0.95, 0.75), (-0.6, 0.64), 0.18), "main"),
        (box(at, (-0.42, 0.18), (-0.88, -0.55), 0.06), "shade"),
        *((line(at, (u, -0.4), (u, 0.42), 0.09), "ink") for u in (-0.5, -0.22, 0.06, 0.34)),
    ]


def radio(at: Plane) -> list:
    return [
        (line(at, (0.5, -0.4), (0.95, -1.05), 0.1), "ink"),
        (box(at, (-1.02, 1.02), (-0.45, 0.75), 0.12), "main"),
        (circle(at, -0.46, 0.16, 0.4), "ink"),
        (circle(at, -0.46, 0.16, 0.24), "main"),
        (box(at, (0.12, 0.84), (-0.26, 0.02)), "glint"),
        (circle(at, 0.28, 0.42, 0.14), "ink"),
        (circle(at, 0.68, 0.42, 0.14), "ink"),
    ]


def siren(at: Plane) -> list:
    dome = np.maximum(ellipse(at, 0.0, 0.42, 0.62, 0.92), at.v - 0.42)
    return [
        (line(at, (-0.68, -0.42), (-0.98, -0.68), 0.15), "main"),
        (line(at, (0.68, -0.42), (0.98, -0.68), 0.15), "main"),
        (line(at, (0.0, -0.74), (0.0, -1.04), 0.15), "main"),
        (dome, "main"),
        (box(at, (-0.9, 0.9), (0.42, 0.82), 0.08), "ink"),
        (ellipse(at, 0.0, 0.08, 0.16, 0.3), "glint"),
    ]


def whistle(at: Plane) -> list:
    return [
        (ring(at, -0.82, -0.52, 0.2, 0.11), "ink"),
        (circle(at, -0.3, 0.14, 0.66), "main"),
        (box(at, (-0.3, 1.06), (-0.52, -0.02)), "main"),
        (polygon(at, (0.12, -0.54), (0.42, -0.54), (0.18, -0.12)), "ink"),
        (circle(at, -0.3, 0.2, 0.26), "ink"),
        (circle(at, -0.26, 0.26, 0.13), "shade"),
    ]


LOOKS = {look.__name__: look for look in (banjo, bell, bird, clock, cricket, dog, drum, flute, frog, horn, motor,
                                          radio, siren, whistle)}  # fmt: skip


class Patch(NamedTuple):
    """A thing drawn for itself, a small picture for each frame.

    rgb: 0 to 255.  cover: share of each pixel that the thing covers.  main: pixels of its own colour.
    corner: row and column of the patch's upper left pixel in the frame; part of it may lie outside.
    """

    rgb: Float[np.ndarray, "t y x 3"]
    cover: Float[np.ndarray, "t y x"]
    main: Bool[np.ndarray, "t y x"]
    corner: Int[np.ndarray, "t 2"]


def paint(thing) -> Patch:
    """Draws a `plan.Thing` that has its place."""
    margin = int(np.ceil(thing.half * REACH * 1.25)) + 2
    corner = np.stack([np.floor(thing.y), np.floor(thing.x)], 1).astype(int) - margin
    steps = np.arange(2 * margin + 1) + 0.5
    dy = (corner[:, 0, None] + steps - thing.y[:, None])[:, :, None] / thing.half
    dx = (corner[:, 1, None] + steps - thing.x[:, None])[:, None, :] / thing.half
    cosine, sine = np.cos(thing.tilt)[:, None, None], np.sin(thing.tilt)[:, None, None]
    u = cosine * dx + sine * dy
    layers = LOOKS[thing.name](Plane(-u if thing.mirrored else u, cosine * dy - sine * dx))
    palette = tones(thing.colour)
    light = thing.tint * (1.05 - 0.05 * dy[..., None])  # lighter at the top
    rgb = np.broadcast_to(palette[layers[0][1]], (*u.shape, 3)).copy()
    main = np.full(u.shape, layers[0][1] == "main")
    for shape, tone in layers:
        share = coverage(shape, thing.half)
        rgb += share[..., None] * (palette[tone] - rgb)
        main = np.where(share >= 0.5, tone == "main", main)
    cover = coverage(union(*(shape for shape, _ in layers)), thing.half)
    return Patch(rgb * light, cover, main, corner)
