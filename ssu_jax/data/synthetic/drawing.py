"""Shapes as signed distances, and painting them with smooth edges.

A shape is a float array of distances to its rim, negative inside, at the points (u, v) of an object's own plane:
u to the right, v downward, the object inside -1.1 ... 1.1. Union is `np.minimum`, difference `np.maximum(a, -b)`.
"""

from typing import NamedTuple

import numpy as np


class Plane(NamedTuple):
    """Points of an object's own plane. u, v: float64 [t, y, x]."""

    u: np.ndarray
    v: np.ndarray


def circle(at: Plane, u: float, v: float, radius: float) -> np.ndarray:
    return np.sqrt((at.u - u) ** 2 + (at.v - v) ** 2) - radius


def ring(at: Plane, u: float, v: float, radius: float, width: float) -> np.ndarray:
    return np.abs(circle(at, u, v, radius)) - 0.5 * width


def ellipse(at: Plane, u: float, v: float, radius_u: float, radius_v: float) -> np.ndarray:
    """Distance to first order: exact on the rim, which is all that a smooth edge needs."""
    du, dv = (at.u - u) / radius_u, (at.v - v) / radius_v
    radius = np.sqrt(du**2 + dv**2)
    slope = np.sqrt((du / radius_u) ** 2 + (dv / radius_v) ** 2)
    return radius * (radius - 1.0) / np.maximum(slope, 1e-9)


def box(at: Plane, u: tuple[float, float], v: tuple[float, float], corner: float = 0.0) -> np.ndarray:
    """A rectangle from u[0] to u[1] and v[0] to v[1] with round corners."""
    du = np.abs(at.u - 0.5 * (u[0] + u[1])) - 0.5 * (u[1] - u[0]) + corner
    dv = np.abs(at.v - 0.5 * (v[0] + v[1])) - 0.5 * (v[1] - v[0]) + corner
    outside = np.sqrt(np.maximum(du, 0.0) ** 2 + np.maximum(dv, 0.0) ** 2)
    return outside + np.minimum(np.maximum(du, dv), 0.0) - corner


def line(at: Plane, start: tuple[float, float], stop: tuple[float, float], width: float) -> np.ndarray:
    """A stroke with round ends."""
    along_u, along_v = stop[0] - start[0], stop[1] - start[1]
    du, dv = at.u - start[0], at.v - start[1]
    part = np.clip((du * along_u + dv * along_v) / (along_u**2 + along_v**2), 0.0, 1.0)
    return np.sqrt((du - part * along_u) ** 2 + (dv - part * along_v) ** 2) - 0.5 * width


def polygon(at: Plane, *corners: tuple[float, float]) -> np.ndarray:
    """A closed figure with straight sides; inside by the crossing rule."""
    distance = np.full(at.u.shape, np.inf)
    inside = np.zeros(at.u.shape, bool)
    for start, stop in zip(corners, corners[1:] + corners[:1], strict=True):
        distance = np.minimum(distance, line(at, start, stop, 0.0))
        if start[1] != stop[1]:
            crosses = (at.v < start[1]) != (at.v < stop[1])
            inside ^= crosses & (at.u < start[0] + (at.v - start[1]) * ((stop[0] - start[0]) / (stop[1] - start[1])))
    return np.where(inside, -distance, distance)


def union(*shapes: np.ndarray) -> np.ndarray:
    result = shapes[0]
    for shape in shapes[1:]:
        result = np.minimum(result, shape)
    return result


def coverage(shape: np.ndarray, half: float) -> np.ndarray:
    """Share of each pixel that the shape covers. half: pixels to one unit of the plane."""
    return np.clip(0.5 - shape * half, 0.0, 1.0)
