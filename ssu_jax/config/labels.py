"""Class names of the data sets, with their major category. Facts, named by their source."""

# The built-in world (our design): sounding object classes and their major category.
SYNTHETIC = {
    "banjo": "music",
    "bell": "music",
    "bird": "animal",
    "clock": "tool",
    "cricket": "animal",
    "dog": "animal",
    "drum": "music",
    "flute": "music",
    "frog": "animal",
    "horn": "vehicle",
    "motor": "vehicle",
    "radio": "tool",
    "siren": "vehicle",
    "whistle": "tool",
}
SYNTHETIC_CLASSES = tuple(SYNTHETIC)
