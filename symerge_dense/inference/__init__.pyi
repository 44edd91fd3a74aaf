from .backend import Backend as Backend
from .backend import TorchModel as TorchModel
from .backend import open_backend as open_backend
from .pictures import draw_legend as draw_legend
from .pictures import draw_overlay as draw_overlay
from .pictures import draw_panel as draw_panel
from .predictor import Predictor as Predictor
