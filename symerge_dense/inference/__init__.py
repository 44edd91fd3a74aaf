"""Using one finished model: prediction on images and videos, and its export to other runtimes."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
