"""Test plug-ins: import a module, find what it registered, and run every contract on it.

No pytest is needed. The exit code is 0 where all contracts are kept, 1 where one is broken, 2 where the question is
wrong.

    python -m symerge_dense.testing my_lab.saliency
    python -m symerge_dense.testing my_lab.saliency --dataset Photos --options root=photos
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence

FLAGS = {
    "task": "tasks",
    "dataset": "data sets",
    "head": "heads",
    "method": "merging methods, static and adaptive",
    "teacher": "teachers of the adaptation",
}
MARKS = {True: "ok    ", False: "BROKEN", None: "  -   "}


def main(words: Sequence[str] | None = None) -> int:
    """Test what a module registered, and print a report.

    Args:
        words: the command line without the program's name; None takes ``sys.argv``.

    Returns:
        0 where all contracts are kept, 1 where one is broken, 2 for a user's error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m symerge_dense.testing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    arguments(parser)
    try:
        return run(parser.parse_args(words))
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line.

    Args:
        parser: to be filled.
    """
    parser.add_argument("module", help="dotted name of the module that registers them; it is imported")
    parser.add_argument("names", nargs="*", metavar="NAME", help="registered names; none means all of the module")
    for flag, what in FLAGS.items():
        parser.add_argument(f"--{flag}", action="store_true", help=f"test {what}; without such a flag all kinds are")
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="arguments of the constructor, for plug-ins that cannot do without, as in --cfg-options: root=photos "
        "targets.depth.path=depth/{}.png",
    )


def run(options: argparse.Namespace) -> int:
    """Test the plug-ins.

    Args:
        options: as ``arguments`` declares them.

    Returns:
        0 where all contracts are kept, else 1.

    Raises:
        ValueError: the module or a name is wrong, or a data set lacks arguments.
    """
    import torch
    from mmengine.config import Config
    from mmengine.logging import MMLogger

    from symerge_dense.pipeline.config_files import parse_overrides
    from symerge_dense.testing.plugins import check_plugin, find_plugins

    torch.manual_seed(0)
    MMLogger.get_current_instance().setLevel("ERROR")
    given = Config()
    given.merge_from_dict(parse_overrides(options.options, "--options"))
    flags = [flag for flag in FLAGS if getattr(options, flag)]
    broken, total, incomplete = 0, 0, list[str]()
    for plugin in find_plugins(options.module, flags, options.names):
        owner = plugin.kind.registry[plugin.name]
        print(f"{plugin.kind.registry.kind} {plugin.name} ({owner.__module__}.{owner.__qualname__})", flush=True)
        try:
            outcomes = check_plugin(plugin, given.to_dict())
        except ValueError as error:  # the others are tested nevertheless
            incomplete.append(str(error))
            print("  not tested\n")
            continue
        for outcome in outcomes:
            total, broken = total + (outcome.kept is not None), broken + (outcome.kept is False)
            lines = [f"  {MARKS[outcome.kept]}  {outcome.promise}"]
            if outcome.reason:
                told = outcome.reason if outcome.kept is False else f"not checked: {outcome.reason}"
                lines += textwrap.wrap(told, 110, initial_indent=" " * 10, subsequent_indent=" " * 10)
            print("\n".join(lines), flush=True)
        print()
    if total:
        print(f"{broken} of {total} contracts are broken." if broken else f"All {total} contracts are kept.")
    if incomplete:
        raise ValueError("\n".join(incomplete))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
