"""The report as one page of HTML: tables, pictures and plots of runs and comparisons, without a network."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
