"""Training of both networks, from a configuration file to a checkpoint with measured metrics."""

from neuroxai.training.config.config import Config
from neuroxai.training.config.config_file import read_config
from neuroxai.training.run import train

__all__ = ["Config", "read_config", "train"]
