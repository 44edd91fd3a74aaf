"""What all studies share: how runs are made, kept and repeated, intervals over seeds, and what is written."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
