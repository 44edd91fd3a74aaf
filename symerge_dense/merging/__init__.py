"""Weights to weights, pure torch: static mergers, one per file, and the layer-wise merge that SyMerge adapts."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
