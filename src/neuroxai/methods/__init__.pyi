from .make import all_methods as all_methods
from .make import make_method as make_method
from .make import make_methods as make_methods
from .table import METHODS as METHODS
from .table import PAPER as PAPER
