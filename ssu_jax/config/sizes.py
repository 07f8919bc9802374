"""Named sizes of the model."""

from ssu_jax.config import Config


def nano() -> Config:
    """96 x 96, own small encoders: laptop CPU, tests, quick start. All defaults."""
    return Config()


def tiny() -> Config:
    """A nano that compiles and steps in seconds, for tests: learns nothing of use."""
    config = Config(name="tiny")
    config.data.image_size = 32
    config.data.num_frames, config.data.train_seconds = 4, 0
    config.data.max_text_tokens = 28
    config.model.width, config.model.num_heads = 16, 2
    config.model.pixel_width, config.model.num_queries = 8, 2
    config.model.fusion_layers = config.model.text_layers = 1
    config.model.embedding_width = 8
    config.model.visual.stem_width, config.model.visual.widths = 4, (4, 8, 8, 8)
    config.model.audio.widths = (4, 4, 8)
    config.model.moe.hidden = 16
    config.model.language_model.width = 8
    return config
