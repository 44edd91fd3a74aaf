"""Measure models: the metrics of every task, the evaluation on a data set, Delta_m."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
