"""Explanations of deep networks that read brain MRI.

Research software, not for clinical use.

>>> import neuroxai as nx
>>> nx.METHODS["grad_cam"].citation
'arXiv:1610.02391'
"""

import lazy_loader

# The stub beside this file lists the public names; each is imported on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
