"""The steps of a run: from a config to experts, one merged model, its table and its pictures."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
