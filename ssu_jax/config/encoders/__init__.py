"""Sizes of the published encoders, one file each, the named variants beside the dataclass."""
