"""Networks of the paper, and networks of the user's own in any supported format."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
