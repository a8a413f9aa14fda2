"""Training of segmenters and classifiers, from a configuration to an evaluated checkpoint."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
