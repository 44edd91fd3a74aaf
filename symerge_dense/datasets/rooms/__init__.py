"""Rooms: indoor scenes rendered on the spot, with perfect labels for many tasks."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
