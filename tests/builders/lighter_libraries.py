"""Other packages without what they do beside the point: a quarter of the time of many tiny trainings.

It is run where they are imported: in the processes of pytest, and in those that ``prepared_python`` forks. Programs
that a test starts in a fresh interpreter, as the installed wheel, have the packages as they are.
"""

import functools

import torch
import yapf.yapflib.yapf_api
from mmengine.visualization import Visualizer


def as_it_is(text, style_config):
    """In place of yapf: MMEngine has the config of every Runner laid out four times. It must be Python, as for yapf."""
    compile(text, "config", "exec")
    return text, True


def no_device(seed):
    """PyTorch notes a seed for devices that may be found later, each with the call stack as text."""


@functools.cache
def figure(words):
    """Canvas, figure and axes on which MMEngine draws pictures: every Runner makes them, few use them."""
    return FIGURE(None, dict(words))


FIGURE = Visualizer._initialize_fig
Visualizer._initialize_fig = lambda self, fig_cfg: figure(tuple(fig_cfg.items()))
yapf.yapflib.yapf_api.FormatCode = as_it_is
if not torch.cuda.device_count() and not torch.xpu.is_available():
    torch.cuda.manual_seed_all = torch.xpu.manual_seed_all = torch.mtia.manual_seed_all = no_device
