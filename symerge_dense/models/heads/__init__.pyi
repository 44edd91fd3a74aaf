from .base import Head as Head
from .mmseg import MMSegHead as MMSegHead
from .native import DeepLab as DeepLab
from .native import Linear as Linear
from .native import MultiScale as MultiScale
from .native import Pooled as Pooled
