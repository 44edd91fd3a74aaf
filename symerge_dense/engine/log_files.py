"""Log files of MMEngine on a disk that takes no more: one error with the file's name, no traceback for every line."""

from __future__ import annotations

import functools
import logging
import sys
from contextlib import suppress


def end_by_errors(logger: logging.Logger) -> None:
    """Let a line that the disk does not take raise its error: Python's logging prints a traceback and goes on.

    Args:
        logger: with the files.
    """
    for handler in _files(logger):
        handler.handleError = functools.partial(_raise, handler)  # type: ignore[method-assign]


def _raise(handler: logging.FileHandler, record: logging.LogRecord) -> None:
    error = sys.exc_info()[1]
    if isinstance(error, OSError):
        raise OSError(error.errno, error.strerror, handler.baseFilename) from error
    type(handler).handleError(handler, record)


def close_files(logger: logging.Logger) -> None:
    """Close the files, and take them from the logger.

    An error is left out: every line was written when it came, and what ends the run is on its way already.

    Args:
        logger: with the files.
    """
    for handler in _files(logger):
        with suppress(OSError):
            handler.close()
        logger.removeHandler(handler)


def _files(logger: logging.Logger) -> list[logging.FileHandler]:
    return [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
