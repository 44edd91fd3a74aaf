"""The registries: children of MMEngine's, with helpful errors and with plug-ins of other packages.

A class is registered by a decorator, ``@TASKS.register_module()``, under its ``name`` (``'depth'``) or, if it has none,
under its class name (``'NYUv2'``). In a config ``type='depth'`` and ``type=Depth`` mean the same. A registry imports
the folders with its classes when it is first used, so that ``import symerge_dense`` stays light. MMEngine finds the
registries of ``default_scope='symerge_dense'`` by importing this module.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
import pkgutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

from mmengine import registry as mmengine

SCOPE = "symerge_dense"
PLUGINS = "symerge_dense.plugins"
"""Entry-point group. Modules that installed packages name there are imported when a registry is first used."""
T = TypeVar("T")


def did_you_mean(name: str, known: Collection[str], kind: str) -> str:
    """Error text for an unknown name: the value, the nearest known names, and all of them, or 20 of more than 40.

    Args:
        name: what was asked for.
        known: all that could have been meant.
        kind: what such a name stands for, for example ``'task'``.

    >>> did_you_mean("dept", ["depth", "normals"], "task")
    "unknown task 'dept'. Did you mean 'depth'? Known: depth, normals."
    """
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    hint = f" Did you mean {', '.join(map(repr, close))}?" if close else ""
    names = sorted(known) if len(known) <= 40 else [*sorted(known)[:20], f"and {len(known) - 20} more"]
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or 'none'}."


class Registry(mmengine.Registry, Generic[T]):
    """MMEngine's registry as a mapping from names to classes, whose errors suggest the nearest names.

    Args:
        kind: what an entry is, for messages: ``'task'``.
        parent: MMEngine's registry that is searched for names that this one lacks.
        locations: modules, or packages with all their modules, that hold the entries of this package. They are
            imported when the registry is first used.
    """

    _imported: bool

    def __init__(self, kind: str, parent: mmengine.Registry | None = None, locations: Sequence[str] = ()) -> None:
        super().__init__(kind, parent=parent, scope=SCOPE, locations=list(locations))

    @property
    def kind(self) -> str:
        """What an entry is, for messages."""
        return str(self.name)

    def __getitem__(self, name: str) -> type[T]:
        """The class called ``name``; ValueError, with the nearest names, if there is none.

        Unlike ``get`` it never imports what the name says: it may come from a file of results.
        """
        self.import_from_location()
        if "." in name and name not in self._module_dict:
            raise self._unknown(name)
        found: type[T] = self.get(name)
        return found

    def __iter__(self) -> Iterator[str]:
        self.import_from_location()
        return iter(sorted(self._module_dict))

    def __len__(self) -> int:
        self.import_from_location()
        return len(self._module_dict)

    def __contains__(self, name: object) -> bool:
        self.import_from_location()
        return name in self._module_dict

    def get(self, key: str) -> Any:
        """The class of a name: an entry of this registry, of its parents, or of another package by its scope.

        Args:
            key: a name, ``scope.name``, or a dotted path ``package.module.Class``.

        Raises:
            ValueError: there is no such class.
        """
        self.import_from_location()
        found: Any = self._module_dict.get(key)  # 'my_lab.heads:build' has dots and is no path
        if "." not in key:  # MMEngine would also accept a module or a built-in function of that name
            line: mmengine.Registry | None = self
            while found is None and line is not None:
                found, line = line.module_dict.get(key), line.parent
        elif found is None:
            with suppress(RuntimeError, KeyError, ImportError):
                found = super().get(key)
            if found is None:
                self._explain(key)
        if found is None:
            raise self._unknown(key)
        return found

    def _explain(self, key: str) -> None:
        """Raise what MMEngine does not tell: a module that is there and fails while it is imported."""
        module = key.rpartition(".")[0]
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):
                raise ValueError(f"{self.kind} {key!r}: {module} cannot be imported: {error}.") from error
        except Exception as error:  # foreign code can fail in any way
            found = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self.kind} {key!r}: {module} cannot be imported: {found}.") from error

    def _unknown(self, key: str) -> ValueError:
        known = {*self._module_dict, *(self.parent.module_dict if self.parent is not None else ())}
        own = " If it is your own, import its module: --import MODULE, or custom_imports in the config."
        failed = "".join(f" Or it belongs to this: {why}" for why in broken.values())
        return ValueError(did_you_mean(key, known, self.kind) + own + failed)

    def name_of(self, owner: type) -> str | None:
        """The name that a class is registered under; None where it is not registered here.

        Args:
            owner: the class; its copy in a reloaded module counts as the same.
        """
        place = owner.__module__, owner.__qualname__
        names = (name for name, entry in self._module_dict.items() if (entry.__module__, entry.__qualname__) == place)
        return next(names, None)

    def build(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        """Build an object.

        Args:
            cfg: ``{'type': class or name, **arguments}``; anything that is no dict is returned unchanged.
            *args: positional arguments of the class.
            **kwargs: further arguments, which those in ``cfg`` override.

        Raises:
            ValueError: no class has that name.
        """
        if not isinstance(cfg, Mapping):
            return cfg
        arguments = dict(cfg)
        kind = arguments.pop("type")
        factory = self.get(kind) if isinstance(kind, str) else kind
        return factory(*args, **{**kwargs, **arguments})

    def import_from_location(self) -> None:
        """Import the plug-ins of installed packages and the modules that hold this registry's entries, once."""
        if self._imported:
            return
        self._imported = True  # before the imports: they may use the registry themselves
        try:
            for location in self._locations:
                package = importlib.import_module(location)
                for module in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{location}."):
                    importlib.import_module(module.name)
            import_installed_plugins()
        except BaseException:
            self._imported = False  # the next call says what is wrong, too
            raise

    def _register_module(self, module: Any, module_name: Any = None, force: bool = False) -> None:
        """Register a class under ``module_name``, else its ``name``, else its class name.

        Raises:
            ValueError: another class already owns the name.
        """
        own = getattr(module, "name", None)
        names = module_name or (own if isinstance(own, str) else module.__name__)
        for name in [names] if isinstance(names, str) else names:
            owner = self._module_dict.get(name, module)
            if (owner.__module__, owner.__qualname__) != (module.__module__, module.__qualname__) and not force:
                raise ValueError(f"{self.kind} {name!r} is registered twice: {owner!r} and {module!r}; rename one.")
            self._module_dict[name] = module


MODELS: Registry[Any] = Registry(
    "model", mmengine.MODELS, ["symerge_dense.models.multi_task", "symerge_dense.adaptation.symerge_model"]
)
HEADS: Registry[Any] = Registry("head", MODELS, ["symerge_dense.models.heads"])
DATASETS: Registry[Any] = Registry("data set", mmengine.DATASETS, ["symerge_dense.datasets"])
TASKS: Registry[Any] = Registry("task", mmengine.TASK_UTILS, ["symerge_dense.tasks"])
MERGERS: Registry[Any] = Registry("merger", None, ["symerge_dense.merging.methods"])
ADAPTIVE_METHODS: Registry[Any] = Registry("adaptive method", None, ["symerge_dense.adaptation.methods"])
TEACHERS: Registry[Any] = Registry("teacher", None, ["symerge_dense.adaptation.teachers"])
STUDIES: Registry[Any] = Registry("study", None, ["symerge_dense.studies"])
HOOKS: Registry[Any] = Registry("hook", mmengine.HOOKS, ["symerge_dense.engine", "symerge_dense.adaptation.hook"])
METRICS: Registry[Any] = Registry("metric", mmengine.METRICS, ["symerge_dense.evaluation.metric"])
DATA_SAMPLERS: Registry[Any] = Registry("sampler", mmengine.DATA_SAMPLERS, ["symerge_dense.datasets.samplers"])
LOOPS: Registry[Any] = Registry("loop", mmengine.LOOPS, ["symerge_dense.engine.loops"])
OPTIM_WRAPPERS: Registry[Any] = Registry(
    "optimizer wrapper", mmengine.OPTIM_WRAPPERS, ["symerge_dense.engine.optim_wrapper"]
)
OPTIM_WRAPPER_CONSTRUCTORS: Registry[Any] = Registry(
    "optimizer wrapper constructor", mmengine.OPTIM_WRAPPER_CONSTRUCTORS, ["symerge_dense.engine.optim_wrapper"]
)
RUNNERS: Registry[Any] = Registry("runner", mmengine.RUNNERS, ["symerge_dense.engine.runner"])
TRANSFORMS: Registry[Any] = Registry("transform", mmengine.TRANSFORMS, ["symerge_dense.datasets.transforms"])
VISUALIZERS: Registry[Any] = Registry("visualizer", mmengine.VISUALIZERS)
for _root in (
    mmengine.EVALUATOR,
    mmengine.LOG_PROCESSORS,
    mmengine.MODEL_WRAPPERS,
    mmengine.OPTIMIZERS,
    mmengine.PARAM_SCHEDULERS,
    mmengine.VISBACKENDS,
):
    Registry(_root.name, _root)  # MMEngine warns if a scope lacks one of its registries


# -- plug-ins ---------------------------------------------------------------------------------------------------------
_installed: list[str] = []
broken: dict[str, str] = {}
"""{installed plug-in that cannot be imported: why, as its warning says}."""
imported: dict[str, None] = {}
"""What ``import_plugins`` was given, in order: what a written config must import, too."""


def import_installed_plugins() -> None:
    """Import what installed packages name under the entry-point group ``symerge_dense.plugins``, once.

    One that cannot be imported is a warning, and part of the error where a name is then not known: what needs it fails,
    and nothing else.
    """
    if _installed:
        return
    _installed.append(PLUGINS)  # before the imports: a plug-in may use a registry itself
    for entry in importlib.metadata.entry_points(group=PLUGINS):
        try:
            entry.load()
        except (Exception, SystemExit) as error:  # foreign code can fail in any way
            broken[entry.value] = (
                f"plug-in {entry.name} ({entry.value}) of an installed package cannot be imported: "
                f"{type(error).__name__}: {error}; mend it or uninstall its package."
            )
            print(f"warning: {broken[entry.value]}", file=sys.stderr)
        _installed.append(entry.value)


def search_also(*folders: str) -> None:
    """Append folders to Python's module search path, such as the working directory and the folder of a config.

    Args:
        *folders: paths.
    """
    sys.path += [folder for folder in folders if folder not in sys.path]


def import_plugins(modules: Sequence[str]) -> None:
    """Import modules of other packages, so that what they register is known.

    Args:
        modules: dotted names, found as by Python's ``import`` or in the working directory: ``my_lab.saliency``; or
            ``my_lab.heads:build``, a class or function that gives an ``nn.Module``: it becomes the head of that name.

    Raises:
        ValueError: a module cannot be found, fails while it is imported, or has nothing of that name.
    """
    search_also(os.getcwd())
    for name in modules:
        module, colon, attribute = name.partition(":")
        try:
            found = importlib.import_module(module)
        except (Exception, SystemExit) as error:  # foreign code can fail in any way
            what = f"{type(error).__name__}: {error}"
            if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
                raise ValueError(
                    f"plug-in {name} cannot be imported ({what}); run from the folder that holds it, install "
                    "its package, or put its folder on PYTHONPATH."
                ) from error
            raise ValueError(f"plug-in {name} fails while it is imported ({what}); mend it.") from error
        imported.setdefault(name)
        if colon:
            head = getattr(found, attribute, None)
            if not callable(head):
                made = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
                raise ValueError(did_you_mean(attribute, made, f"head of module {module}"))
            HEADS.register_module(name=name, module=head)


def registered_by(owner: type) -> str | None:
    """The module that a plug-in class comes from; None for the classes of this package.

    Args:
        owner: a registered class.
    """
    module = owner.__module__
    return None if module.split(".")[0] == SCOPE else module
