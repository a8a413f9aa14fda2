from .config.config import Config as Config
from .config.config_file import read_config as read_config
from .run import train as train
