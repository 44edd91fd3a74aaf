"""symerge_dense: merge dense-prediction experts that share a backbone into one multi-task model, without labels."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

__version__ = "0.1.0"
