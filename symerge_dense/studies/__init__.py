"""Studies: every claim of the method as a question, a grid of runs, and a rule for the verdict. One claim, one file."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
