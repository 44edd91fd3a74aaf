"""Images and labels: NYUv2, rendered rooms, any image folder; joint geometry, sampling, and a view without labels."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
