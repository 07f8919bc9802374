"""The data sets of the field, each in the layout in which it is distributed."""

from ssu_jax.data.datasets.avsbench import AVSS, MS3, S4
from ssu_jax.data.datasets.described import FLifescene, FMusic
from ssu_jax.data.datasets.layout import Item, Layout, Reading
from ssu_jax.data.datasets.music import Music
from ssu_jax.data.datasets.music_avqa import MusicAvqa
from ssu_jax.data.datasets.raw import Raw
from ssu_jax.data.datasets.vggsound import VggSound, VggSS

# By the name that `ssu prepare` takes.
LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout for layout in (FMusic, FLifescene, S4, MS3, AVSS, Music, MusicAvqa, VggSound, VggSS, Raw)
}

__all__ = ["LAYOUTS", "Item", "Layout", "Reading"]
