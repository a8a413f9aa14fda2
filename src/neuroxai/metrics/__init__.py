"""How good a map is: metrics of faithfulness, localization, randomization, robustness and more."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
