"""What the blocks of a backbone put out, on the way of an image through it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from symerge_dense.experts.model import MultiTaskModel
from symerge_dense.merging.blocks import STEM
from symerge_dense.merging.kinds import block_names, tensor_specs


class _Reached(Exception):
    """Ends a forward pass where enough was seen."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def output_at(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """What ``module`` puts out first while ``run`` works; ``run`` ends there. ValueError if it is never reached."""
    def stop(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        raise _Reached(output)

    handle = module.register_forward_hook(stop)
    try:
        run()
    except _Reached as reached:
        return reached.output
    finally:
        handle.remove()
    raise ValueError("the module was not reached: it has no part in the network's features.")


@torch.no_grad()
def block_shapes(model: MultiTaskModel, image: Tensor) -> dict[str, tuple[int, ...]]:
    """{block of the backbone: shape of its output} for images (N,3,H,W), in the order in which the blocks work.

    Blocks are those of ``merging.kinds``; one that is no module (the stem), has no part in the features or puts out
    anything but one tensor is left out.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def record(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                shapes.setdefault(name, tuple(output.shape))
        return record

    was_training = model.training
    with ExitStack() as stack:
        for name in block_names(tensor_specs(model.backbone)):
            if name != STEM:
                module = model.backbone.get_submodule(name)
                stack.callback(module.register_forward_hook(note(name)).remove)
        model.eval().features(image)
    model.train(was_training)
    return shapes
