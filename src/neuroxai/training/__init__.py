"""Training of segmenters and classifiers, from a configuration to an evaluated checkpoint."""

from neuroxai.training.config.config import Config
from neuroxai.training.config.config_file import read_config
from neuroxai.training.run import train

__all__ = ["Config", "read_config", "train"]
