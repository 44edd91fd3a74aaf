"""List, copy or print the configs that come with the package."""

from __future__ import annotations

import argparse

from symerge_dense.commands.train import CONFIG
from symerge_dense.pipeline.config_files import CfgOptions, copy_config, find_config, shipped


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
    from mmengine.config import Config

    from symerge_dense.pipeline.config import RunConfig, load_config, type_names

    config: RunConfig = load_config(path, options.cfg_options or {})
    values = {key: value for key, value in vars(config).items() if key not in ("name", "runner")}
    print(Config(type_names({**values, **config.runner})).pretty_text)
