"""The command line: ``symerge SUBCOMMAND``, and ``tools/NAME.py``, which are the same functions.

A command is one file with a docstring that says what it does, ``arguments(parser)`` and ``run(options)``, and perhaps
``more_help(words)``, which --help prints at its end. What takes time to import is imported in ``run``, so that
``--help`` and wrong arguments are answered at once.
"""
