"""Config files by path or by name, and values for them from a command line. Light: no torch."""

from __future__ import annotations

import argparse
import difflib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

from symerge_dense.command_line import literal, pair
from symerge_dense.fileio import atomic_write
from symerge_dense.registry import did_you_mean

PACKAGE = Path(__file__).resolve().parents[1]


def shipped_folder() -> Path:
    """The configs that come with the package: inside it where it was installed, else those of the checkout."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def shipped() -> dict[str, Path]:
    """{name: file} of the configs that can be run, as ``symerge train NAME`` or ``symerge compare NAME`` finds them."""
    folder = shipped_folder()
    found = [*folder.glob("*.py"), *(folder / "ablation").glob("*.py")]
    return {path.stem: path for path in sorted(found) if path.stem != "__init__"}


def find_config(config: str | Path) -> Path:
    """The file of a config: a path, or the name of one that comes with the package.

    Args:
        config: for example ``configs/rooms_symerge.py`` or ``rooms_symerge``.

    Raises:
        ValueError: there is no such file and no config of that name.
    """
    path = Path(config)
    if path.is_file():
        return path
    known = shipped()
    if str(config) in known:
        return known[str(config)]
    beside = [str(file) for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
    close = difflib.get_close_matches(str(path), beside, n=1, cutoff=0.8)
    if close:
        raise ValueError(f"there is no config file {str(config)!r}. Did you mean {close[0]!r}?")
    near = [str(file) for file in Path("configs").glob("*.py")]
    raise ValueError(did_you_mean(str(config), near or list(known), "config file"))


def shipped_studies() -> dict[str, Path]:
    """{name: file} of the studies that come with the package."""
    return {path.stem: path for path in sorted((shipped_folder() / "studies").glob("*.py")) if path.stem != "__init__"}


def find_study(name: str) -> Path:
    """The config file of a study.

    Args:
        name: of a study that comes with the package, or a path.

    Raises:
        ValueError: there is none.
    """
    known = shipped_studies()
    path = known.get(name, Path(name))
    if not path.is_file():
        raise ValueError(did_you_mean(name, [*known, "all"], "study"))
    return path


def copy_config(name: str, folder: str | Path) -> list[Path]:
    """Copy a config that comes with the package, with all that it is made of, to edit it.

    Args:
        name: as ``shipped`` has it.
        folder: where its file goes; the files it reads go to folders beside it.

    Returns:
        The files that were written.

    Raises:
        ValueError: an unknown name, or another file stands there.
    """
    known, source = shipped(), shipped_folder()
    if name not in known:
        raise ValueError(did_you_mean(name, known, "config"))
    files = [
        known[name],
        *(path for part in ("_base_", "experts", "merge") for path in sorted((source / part).glob("*"))),
    ]
    files = [path for path in files if path.suffix == ".py"]
    targets = [Path(folder) / path.relative_to(source) for path in files]
    for path, target in zip(files, targets, strict=True):
        if target.exists() and target.read_bytes() != path.read_bytes():  # configs share _base_
            raise ValueError(f"{target} exists and differs; choose another folder, or remove it.")
    for path, target in zip(files, targets, strict=True):
        with atomic_write(target) as temporary:
            shutil.copyfile(path, temporary)
    return targets


class CfgOptions(DictAction):
    """MMEngine's ``DictAction`` for ``--cfg-options``: Python literals too, and a clear message for anything else."""

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        opened = val.startswith(("(", "[", "{", "'", '"', "dict("))
        found = literal(val) if opened or "," not in val else val
        if opened and found == val and "dict(" in val:
            raise ValueError("give plain values in dict(key=value, ...), and quote the whole word for the shell.")
        return DictAction._parse_iterable(val) if found == val and set(val) & set(",[]()") else found

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Add ``key.subkey=value`` words to the dict of overrides; others end the program with exit code 2."""
        try:
            setattr(namespace, self.dest, {**(getattr(namespace, self.dest) or {}), **parse_overrides(values)})
        except ValueError as error:
            parser.exit(2, f"error: {error}\n")


def parse_overrides(words: Sequence[str], flag: str = "--cfg-options") -> dict[str, Any]:
    """Overrides of a config from the words of a command line.

    Args:
        words: ``['a.b=1', 'c=x', 'd=[a, b]']``.
        flag: that they follow, for the message.

    Returns:
        ``{'a.b': 1, 'c': 'x', 'd': ['a', 'b']}``, values read as MMEngine's DictAction and Python literals are.

    Raises:
        ValueError: a word without a key or without '=', or with brackets that do not close or stand behind a name
            other than ``dict``.
    """
    parsed: dict[str, Any] = {}
    for word in words:
        try:
            key, text = pair(
                word, "key.subkey=value", "key.subkey=value, for example adaptation.rounds=100", empty=True
            )
        except ValueError as error:
            raise ValueError(f"{flag} {error}") from None
        try:
            parsed[key] = CfgOptions._parse_iterable(text)
        except ValueError as error:
            raise ValueError(f"{flag} {word!r}: {error}") from None
        except (AssertionError, RecursionError):
            raise ValueError(
                f"{flag} {word!r}: brackets do not close, or stand behind a name; write key='[1, 2]' or "
                "key='dict(a=1)', and plain text with such brackets as key='\"text\"', quoted for the shell."
            ) from None
    return parsed


def custom_imports(spec: Any) -> list[str]:
    """The modules that MMEngine's ``custom_imports=dict(imports=[...])`` names.

    Args:
        spec: the config's value.

    Raises:
        ValueError: it has another form.
    """
    if not isinstance(spec, Mapping) or not set(spec) <= {"imports", "allow_failed_imports"}:
        raise ValueError(f"custom_imports={spec!r}: write custom_imports=dict(imports=['my_lab.saliency']).")
    named = spec.get("imports", [])
    return [named] if isinstance(named, str) else list(named)
