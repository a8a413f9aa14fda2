"""Explanations of deep networks that read brain MRI.

Research software, not for clinical use.

>>> import neuroxai as nx
>>> sorted(nx.METHODS)[:2]
['grad_cam', 'guided_backprop']
"""

import lazy_loader

# The stub beside this file lists the public names; each is imported on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
