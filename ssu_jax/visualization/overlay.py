"""The annotated frame: picture with mask, level meter under it, sentence below. The same for videos and previews."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8

from ssu_jax.visualization import pictures

# Text needs room: small pictures are enlarged to it, very large ones reduced.
MIN_WIDTH = 480
MAX_SIDE = 1920


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes of an annotated frame, pixels. All even, since yuv420p wants that."""

    picture_height: int
    picture_width: int
    width: int
    meter_height: int
    strip_height: int
    font_size: int

    @classmethod
    def for_size(cls, height: int, width: int) -> "Layout":
        """For a picture as shown (rotation and pixel aspect applied)."""
        scale = min(max(MIN_WIDTH / width, 1.0), MAX_SIDE / max(height, width))
        picture_height, picture_width = (max(2, 2 * round(side * scale / 2)) for side in (height, width))
        canvas = max(picture_width, MIN_WIDTH)
        font_size = min(max(canvas // 30, 17), 36)
        return cls(
            picture_height, picture_width, canvas, 2 * (font_size // 2 + 1), 2 * round(1.4 * font_size), font_size
        )

    @property
    def height(self) -> int:
        """Of the whole annotated frame."""
        return self.picture_height + self.meter_height + self.strip_height


class Annotator:
    """Draws annotated frames. What holds for a whole second is drawn once."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self._canvas = np.zeros((layout.height, layout.width, 3), np.uint8)
        left = (layout.width - layout.picture_width) // 2
        self._picture = self._canvas[: layout.picture_height, left : left + layout.picture_width]
        self._layers: list[pictures.MaskLayer] = []

    def begin_second(self, mask: Shaped[np.ndarray, "y x"], caption: str, words: Sequence[tuple] = ()) -> None:
        """mask: at any size, nonzero where a pixel sounds; caption: the sentence shown until the next call.

        words: (word, mask, colour), drawn in place of both where there are any.
        """
        layout = self.layout
        parts = [(part, colour) for _, part, colour in words] or [(mask, pictures.PREDICTED_COLOUR)]
        self._layers = [pictures.MaskLayer(self._enlarged(part), colour) for part, colour in parts]
        size = layout.width, layout.strip_height, layout.font_size
        named = [(word, colour) for word, _, colour in words]
        strip = pictures.word_strip(named, *size) if named else pictures.text_strip(caption, *size)
        self._canvas[layout.picture_height + layout.meter_height :] = strip

    def draw(self, frame: UInt8[np.ndarray, "y x 3"], level_db: float) -> UInt8[np.ndarray, "height width 3"]:
        """frame: at the layout's picture size. The array that is returned is drawn over by the next call."""
        layout = self.layout
        self._picture[:] = frame
        for layer in self._layers:
            layer.draw_on(self._picture)
        meter = pictures.level_meter(level_db, layout.width, layout.meter_height)
        self._canvas[layout.picture_height : layout.picture_height + layout.meter_height] = meter
        return self._canvas

    def _enlarged(self, mask: Shaped[np.ndarray, "y x"]) -> UInt8[np.ndarray, "height width"]:
        return pictures.resize((mask > 0).astype(np.uint8), self.layout.picture_height, self.layout.picture_width)
