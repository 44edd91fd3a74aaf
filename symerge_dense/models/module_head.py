"""Any network of torch as a head: a class that is registered, or an object that is wrapped."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from symerge_dense.models.heads.base import Head
from symerge_dense.registry import HEADS, did_you_mean
from symerge_dense.tasks.base import DenseTask

PREFIX = "module."


def fitted(head: Head, task: DenseTask) -> Head:
    """The head, once it is known to pool where its task is one of the whole image, and not to where it is dense.

    Args:
        head: of the task. A wrapped module says ``pooled = True`` in its class.
        task: dense or of the whole image.

    Raises:
        ValueError: they do not fit.
    """
    pooled = head.pooled or getattr(getattr(head, "module", None), "pooled", False) is True
    if task.image_level and not pooled:
        raise ValueError(
            f"task {task.name!r} is one of the whole image, and head {head.name!r} gives a map; choose one that pools: "
            f"heads=dict({task.name}=dict(type='Pooled')), or say pooled = True in the class of your own that does."
        )
    if pooled and not task.image_level:
        raise ValueError(
            f"task {task.name!r} is dense, and head {head.name!r} gives one value for the whole image; choose another, "
            f"such as heads=dict({task.name}=dict(type='MultiScale'))."
        )
    return head


class ModuleHead(Head):
    """An ``nn.Module`` as a head; its ``forward`` maps the list of features to one tensor (N,channels,h,w).

    A class that is registered in ``HEADS`` is wrapped by the multi-task model: ``dict(type='MyHead', width=32)`` builds
    it with ``in_channels``, ``strides``, ``channels`` and its own options. An object is wrapped by hand.

    The module keeps its tensor names behind the prefix ``module.``: in a model they are ``heads.<task>.module.<name>``.
    Its own weights load by ``model.heads[task].module.load_state_dict(...)``.

    Layers go by the module's own submodule names, without the prefix: ``layer='body.2'``. Where 'final' is not
    declared, it is the last submodule, in order of definition, that has parameters and ``channels`` output channels
    (``out_channels`` or ``out_features``). There is no 'pre_final' unless it is declared.

    Args:
        module: the network.
        channels: output channels of the task.
        layers: for example ``{'final': ('out',), 'pre_final': ('body.2',)}``; None takes the module's attribute
            ``layers`` where it is such a dict. A model file does not keep them: declare them in the class for that.
        options: arguments that built the module, without in_channels, strides and channels. They are needed for a
            model file, which repeats them.
        registered: name that built the module, where that is a registered function: the module's class says nothing.
        adapt_layer: submodules that are its 'pre_final' layer, the one that is adapted by default. Unlike ``layers``, a
            model file keeps it.

    Raises:
        ValueError: channels below 1, or a layer that names no submodule.
    """

    def __init__(
        self,
        module: nn.Module,
        channels: int,
        layers: Mapping[str, str | Sequence[str]] | None = None,
        options: Mapping[str, Any] | None = None,
        registered: str | None = None,
        adapt_layer: str | Sequence[str] | None = None,
    ) -> None:
        nn.Module.__init__(self)  # what Head's constructor checks, the features, is the module's own business
        if channels < 1:
            raise ValueError(f"head {type(module).__name__!r}: channels={channels} must be >= 1.")
        self.module = module
        self.channels = channels
        self.options = dict(options or {})
        self._rebuildable = options is not None
        self._registered = registered
        self._adapt_layer = [adapt_layer] if isinstance(adapt_layer, str) else list(adapt_layer or ())
        declared = getattr(module, "layers", None) if layers is None else layers
        declared = dict(declared) if isinstance(declared, Mapping) else {}
        self.layers = self._declared(declared | ({"pre_final": self._adapt_layer} if self._adapt_layer else {}))
        if "final" not in self.layers and (last := self._last_predictor()):
            self.layers["final"] = (last,)

    @property
    def name(self) -> str:  # type: ignore[override]  # a class has one name, wrapped objects have many
        """The registered name of the module's class; its class name where it is not registered."""
        return self._registered or HEADS.name_of(type(self.module)) or type(self.module).__name__

    @property
    def spec(self) -> dict[str, Any]:
        """``{'type': registered name, **options}``.

        Raises:
            ValueError: the class is not registered, or its options are not known or no plain values.
        """
        owner = type(self.module)
        registered = self._registered or HEADS.name_of(owner)
        if registered is None:
            raise ValueError(
                f"head {owner.__name__!r} has no place in a model file: its class is not registered. Put "
                f"@HEADS.register_module() (of symerge_dense.registry) before class {owner.__module__}."
                f"{owner.__qualname__} and give the head as dict(type={owner.__name__!r}, ...)."
            )
        if not self._rebuildable:
            raise ValueError(
                f"head {registered!r} is an object whose arguments are not known, so that a model file could not "
                f"build it again; give the head as dict(type={registered!r}, ...), or wrap it by ModuleHead(..., "
                "options={...})."
            )
        adapted = {"adapt_layer": self._adapt_layer} if self._adapt_layer else {}
        try:
            spec: dict[str, Any] = json.loads(json.dumps({"type": registered, **self.options, **adapted}))
        except TypeError as error:
            raise ValueError(
                f"head {registered!r}: {self.options} cannot be kept in a file ({error}); give plain values."
            ) from error
        return spec

    def forward(self, features: list[Tensor]) -> Tensor:
        """The module's output (N,channels,h,w).

        Args:
            features: the backbone's feature maps, finest first.

        Raises:
            ValueError: the module gives anything but one map of ``channels`` channels.
        """
        output = self.module(list(features))  # a list of its own: the other heads read the same features
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[1] != self.channels:
            found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"head {self.name!r} gives {found} instead of one map (N, {self.channels}, h, w).")
        return output

    def layer_modules(self, name: str) -> list[str]:
        """As ``Head.layer_modules``, with the module's own names of its submodules.

        Args:
            name: of the layer.
        """
        try:
            return super().layer_modules(name)
        except ValueError as error:
            if name not in ("final", "pre_final") or name in self.layers:
                raise
            raise ValueError(
                f"{error} Its class does not say which is {name!r}: declare layers = {{{name!r}: ('name',)}} in it, "
                "or adapt one of these."
            ) from error

    def _submodules(self) -> dict[str, str]:
        return {name.removeprefix(PREFIX): name for name in super()._submodules() if name.startswith(PREFIX)}

    def _declared(self, layers: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
        known, found = self._submodules(), {}
        for layer, names in layers.items():
            given = (names,) if isinstance(names, str) else tuple(names)
            for name in given:
                if name not in known:
                    raise ValueError(
                        f"layers[{layer!r}] of head {self.name!r}: {did_you_mean(name, known, 'submodule')}"
                    )
            found[layer] = tuple(known[name] for name in given)
        return found

    def _last_predictor(self) -> str | None:
        """The last submodule with parameters and as many output channels as the task has."""
        fitting = [name for name in self._submodules().values() if self.channels in _widths(self.get_submodule(name))]
        return fitting[-1] if fitting else None


def _widths(module: nn.Module) -> tuple[Any, ...]:
    """Output channels that a module with parameters declares."""
    learns = next(module.parameters(), None) is not None
    return (getattr(module, "out_channels", None), getattr(module, "out_features", None)) if learns else ()


def build_head(
    head: nn.Module | Mapping[str, Any], task: DenseTask, in_channels: Sequence[int], strides: Sequence[int]
) -> Head:
    """The head of a task, built from its spec or taken as it is; a module that is no ``Head`` is wrapped as one.

    Args:
        head: ``{'type': name or class, **options}``, a ``Head``, or another ``nn.Module``.
        task: says the output channels.
        in_channels: of the backbone's features, finest first.
        strides: of the backbone's features, finest first.

    Raises:
        ValueError: an unknown type, options that it does not take, or other output channels than the task's.
    """
    if isinstance(head, nn.Module):
        made = head if isinstance(head, Head) else ModuleHead(head, task.channels)
        if made.channels != task.channels:
            raise ValueError(
                f"the head of {task.name} has {made.channels} channels, the task {task.channels}; "
                "build the head with the task's channels."
            )
        return made
    if not isinstance(head, Mapping) or "type" not in head:
        raise ValueError(
            f"head {head} of {task.name}: give a Head, another nn.Module, or a spec with 'type', one of "
            f"{', '.join(HEADS)}."
        )
    given: dict[str, Any] = {"in_channels": in_channels, "strides": strides, "channels": task.channels}
    options = {key: value for key, value in head.items() if key not in ("type", "adapt_layer")}
    kind, layer = head["type"], head.get("adapt_layer")
    factory = HEADS.get(kind) if isinstance(kind, str) else kind
    plain = not isinstance(factory, type) or ":" in str(kind)  # knows nothing of this package
    parameters = inspect.signature(factory).parameters if plain else {}
    if plain and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        given = {key: value for key, value in given.items() if key in parameters}
    try:
        built = factory(**{**options, **given})
    except TypeError as error:
        raise ValueError(f"head {dict(head)} of {task.name}, built with {', '.join(given)}: {error}") from error
    if isinstance(built, Head):
        if layer is not None:
            raise ValueError(f"head {dict(head)} of {task.name} names its own layers; leave out adapt_layer.")
        return built
    if not isinstance(built, nn.Module):
        raise ValueError(f"head {dict(head)} of {task.name}: {type(built).__name__} is no torch.nn.Module.")
    name = HEADS.name_of(factory) if plain else None  # other classes go by their own names
    return ModuleHead(built, task.channels, options=options, registered=name, adapt_layer=layer)
