"""What the API reference must be told about this package's docstrings, as an extension of griffe, which reads them."""

from __future__ import annotations

import re
from typing import Any

from griffe import Attribute, Class, Extension, Function, Module, Parameter, ParameterKind, Parameters

EXAMPLE = re.compile(r"(?:^|(?<=\n\n))(>>> .*?)(?=\n\n|\Z)", re.DOTALL)


def as_code(docstring: str) -> str:
    """A docstring with its doctests fenced, which are quotations within quotations to Markdown."""
    return EXAMPLE.sub(r"```pycon\n\1\n```", docstring)


def constructor(owner: Class) -> Function:
    """The ``__init__`` that a NamedTuple has without writing it: its fields, in order."""
    kind = ParameterKind.positional_or_keyword
    fields = [field for field in owner.members.values() if isinstance(field, Attribute) and field.annotation]
    named = [Parameter(f.name, annotation=f.annotation, kind=kind, default=f.value) for f in fields]
    made = Function("__init__", parameters=Parameters(Parameter("self", kind=kind), *named), returns="None")
    made.parent = owner
    return made


class HouseStyle(Extension):
    """Fences doctests, and gives NamedTuples their constructors."""

    def on_package(self, *, pkg: Module, **options: Any) -> None:
        """Called with the whole package when it is read."""
        self._visit(pkg)

    def _visit(self, owner: Any) -> None:
        if owner.docstring:
            owner.docstring.value = as_code(owner.docstring.value)
        if isinstance(owner, Class) and "__init__" not in owner.members and "NamedTuple" in map(str, owner.bases):
            owner.set_member("__init__", constructor(owner))
        for member in list(owner.members.values()):
            if not member.is_alias:
                self._visit(member)
