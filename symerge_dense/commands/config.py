"""List, copy or print the configs that come with the package."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

from symerge_dense.commands.train import CONFIG
from symerge_dense.pipeline.config_files import CfgOptions, copy_config, find_config, shipped

WIDTH = 100  # of the lines of a printed config


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes.

    Args:
        parser: of the command.
    """
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="names and what each is")
    copy = actions.add_parser("copy", help="copy one with all that it reads, to edit it")
    copy.add_argument("name", help="as list prints it")
    copy.add_argument("folder", nargs="?", default="configs", help="where to; default configs")
    show = actions.add_parser("print", help="all values of one, as a run would see them")
    show.add_argument("config", help=CONFIG)
    show.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, metavar="KEY=VALUE", help="e.g. adaptation.rounds=9"
    )


def run(options: argparse.Namespace) -> None:
    """Do what the action says.

    Args:
        options: ``action`` and its arguments.
    """
    if options.action == "list":
        width = max(map(len, shipped()))
        for name, path in shipped().items():
            print(f"{name:{width}}  {path.read_text('utf-8').split(chr(10), 1)[0].strip(chr(34))}")
    elif options.action == "copy":
        for path in copy_config(options.name, options.folder):
            print(path)
    else:
        print_config(options)


def print_config(options: argparse.Namespace) -> None:
    """Print a config's values as a config file that MMEngine reads.

    Args:
        options: ``config`` and ``cfg_options``.
    """
    path = find_config(options.config)
    from symerge_dense.pipeline.config import RunConfig, load_config, type_names
    from symerge_dense.registry import imported

    config: RunConfig = load_config(path, options.cfg_options or {})
    values = {key: value for key, value in vars(config).items() if key not in ("name", "runner")}
    needed = {"custom_imports": {"imports": list(imported)}} if imported else {}
    found = type_names({**needed, **values, **config.runner})
    for key, value in found.items():
        print(f"{key} = {_code(value)}")


def _code(value: Any, indent: str = "") -> str:
    """A value as OpenMMLab's configs spell it. MMEngine's own ``pretty_text`` would sort the tasks."""
    inner = f"{indent}    "
    if isinstance(value, Mapping):
        named = all(isinstance(key, str) and key.isidentifier() and not iskeyword(key) for key in value)
        begin, end = ("dict(", ")") if named else ("{", "}")
        parts = [f"{key if named else repr(key)}{'=' if named else ': '}{_code(value[key], inner)}" for key in value]
    elif isinstance(value, list | tuple):
        begin, end = ("[", "]") if isinstance(value, list) else ("(", ",)" if len(value) == 1 else ")")
        parts = [_code(item, inner) for item in value]
    else:
        return repr(value)
    line = f"{begin}{', '.join(parts)}{end}"
    if len(indent) + len(line) <= WIDTH and "\n" not in line:
        return line
    return f"{begin}\n" + "".join(f"{inner}{part},\n" for part in parts) + f"{indent}{end.lstrip(',')}"
