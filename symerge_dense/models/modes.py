"""How networks run for a while: in evaluation mode, with modes and devices put back, or up to one of their modules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; on leaving, every submodule has its former mode back.

    Each submodule is restored on its own: a part that was frozen in evaluation mode stays so.

    Args:
        *modules: networks; their weights and devices are left as they are.
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def left_alone(modules: Collection[nn.Module]) -> Iterator[None]:
    """On leaving, the networks are back on their former devices and in their former modes.

    Args:
        modules: networks with at least one parameter each.
    """
    devices = [next(module.parameters()).device for module in modules]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for module, device in zip(modules, devices, strict=True):
            module.to(device)
        for part, training in modes:
            part.training = training


# -- what modules give during a pass ----------------------------------------------------------------------------------
@contextmanager
def outputs_of(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Inside, the first output of every module is noted under its name, in the order of computation.

    Args:
        modules: {name: part of a network}; one that gives anything but one tensor is left out.
    """
    found: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def record(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                found.setdefault(name, output)

        return record

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(note(name)).remove)
        yield found


# -- a pass that ends early -------------------------------------------------------------------------------------------
class NotReachedError(ValueError):
    """A computation ended without the module that was waited for."""


class _Reached(Exception):
    """Ends a forward pass early."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def output_at(module: nn.Module, run: Callable[[], object]) -> Tensor:
    """The first output of a module during a computation, which ends there.

    Args:
        module: a part of a network.
        run: the computation; it calls the network.

    Raises:
        NotReachedError: ``run`` never reaches the module.
    """

    def stop(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        raise _Reached(output)

    handle = module.register_forward_hook(stop)
    try:
        run()
    except _Reached as reached:
        return reached.output
    finally:
        handle.remove()
    raise NotReachedError("the module was not reached: it has no part in the network's features.")
