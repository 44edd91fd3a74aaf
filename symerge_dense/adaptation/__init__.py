"""Adaptation on unlabelled images: SyMerge, its rivals and controls, and the hook that ties them to MMEngine."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
