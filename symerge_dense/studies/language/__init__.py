"""A small made-up language: sentences and their labels, a text encoder, and where runs of studies are made on them."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
