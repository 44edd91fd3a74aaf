"""The contracts of tasks, data sets, heads and methods, for plug-ins of other packages: MODULE is one of yours.

python -m symerge_dense.testing my_lab.saliency
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
