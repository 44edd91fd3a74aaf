"""MMEngine as this package uses it: runner, hooks, loops, checkpoints, optimizer wrappers."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
