"""Figures drawn by matplotlib, which is loaded when the first one is: no window, no state between pictures."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

_DPI = 100


def figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure, inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def pixels(drawn: Any) -> UInt8[np.ndarray, "y x 3"]:
    """What a Figure looks like."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
