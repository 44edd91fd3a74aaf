"""Methods that are SyMerge's model with other options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from symerge_dense.engine.adaptive import AdaptiveMethod, Setting
from symerge_dense.engine.options import SyMergeOptions
from symerge_dense.engine.student import Student
from symerge_dense.engine.symerge_model import SyMergeModel
from symerge_dense.experts.assemble import assemble
from symerge_dense.registry import nearest


class ByOptions(AdaptiveMethod):
    """A row of a table: the setting's options with ``changes``, and the caller's ``overrides`` on top.

    Raises ValueError for an override that is no option of the adaptation.
    """

    changes: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, **overrides: Any) -> None:
        known = [field.name for field in dataclasses.fields(SyMergeOptions)]
        for name in overrides:
            if name not in known:
                raise ValueError(nearest(name, known, f"option of {self.name}"))
        self.overrides = overrides

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The caller's overrides."""
        return dict(self.overrides)

    def options(self, setting: Setting) -> SyMergeOptions:
        """The options that the method runs with."""
        return dataclasses.replace(setting.options, **{**self.changes, **self.overrides})

    def student(self, setting: Setting) -> Student:
        return SyMergeModel(assemble(setting.base, setting.experts), self.options(setting))
