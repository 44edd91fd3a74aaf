"""Prepare data: convert the published packagings of NYUv2 to one layout on disk, and check a prepared set."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
