from .cross_task import CrossTask as CrossTask
from .fixed import Experts as Experts
from .fixed import Model as Model
from .mean_teacher import Ema as Ema
from .mean_teacher import Mix as Mix
