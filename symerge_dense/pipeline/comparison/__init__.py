"""Every merging method on the same experts, data and metrics: one table with scores and costs."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
