"""Explanation methods, one per file; ``METHODS`` maps the name of each to its class."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
