"""Reads arrays from Parquet files row by row: one column of nested lists at a time, with a few rows in memory."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from symerge_dense.fileio import optional_import

Array = NDArray[Any]
BUFFER = 1 << 20  # bytes; without it Arrow reads a whole row group's column, which may be all of the file's


class ColumnType(NamedTuple):
    """What a column must hold.

    Args:
        depth: number of nested lists.
        numbers: kind of the numbers in them.
    """

    depth: int
    numbers: Literal["floating point", "integer"]


class RowGroup(NamedTuple):
    """Rows ``first`` .. ``end - 1`` of a series of files.

    Args:
        path: the file that holds them.
        number: of the row group in that file, from 0.
        first: first row.
        end: row after the last.
    """

    path: Path
    number: int
    first: int
    end: int


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn Arrow's errors inside the block into a ValueError that names the file.

    Args:
        path: the file that is read.

    Raises:
        ValueError: reading failed.
    """
    arrow = optional_import("pyarrow", path.name)
    try:
        yield
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not a readable Parquet file ({str(error).strip()[:200]}); fetch this file again."
        ) from error


def row_groups(files: Sequence[Path], columns: Mapping[str, ColumnType]) -> list[RowGroup]:
    """Row groups of files in order; reads the files' footers only.

    Args:
        files: in the order of their rows.
        columns: what the files must hold, by column name.

    Raises:
        ValueError: a file is no Parquet file, lacks one of ``columns``, or holds it as another type; the message
            names the file.
    """
    groups: list[RowGroup] = []
    first = 0
    for path in files:
        parquet = optional_import("pyarrow.parquet", path.name)
        with readable(path), parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            counts = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        for name, wanted in columns.items():
            _check_column(path, schema, name, wanted)
        for number, count in enumerate(counts):
            groups += [RowGroup(path, number, first, first + count)] if count else []
            first += count
    return groups


def _check_column(path: Path, schema: Any, name: str, wanted: ColumnType) -> None:
    if name not in schema.names:
        raise ValueError(
            f"{path}: no column {name!r}, only {', '.join(schema.names) or 'none'}; fetch this file again "
            "or leave out the task that needs it."
        )
    types = optional_import("pyarrow.types", path.name)
    stored = kind = getattr(schema.field(name).type, "storage_type", schema.field(name).type)
    depth = 0
    while hasattr(kind, "value_type") and not types.is_dictionary(kind):
        kind, depth = kind.value_type, depth + 1
    fits = types.is_floating(kind) if wanted.numbers == "floating point" else types.is_integer(kind)
    if depth != wanted.depth or not fits:
        raise ValueError(
            f"{path}: column {name!r} holds {stored}, expected {wanted.depth} nested lists of "
            f"{wanted.numbers} numbers; this is another data set, or another version of it."
        )


class _Cursor:
    """Read position in a column: the process, the row group, its unread rows, and the row just read."""

    def __init__(self, group: RowGroup, column: str) -> None:
        self.process, self.group, self.index = os.getpid(), group, group.first - 1
        parquet = optional_import("pyarrow.parquet", group.path.name)
        file = parquet.ParquetFile(group.path, buffer_size=BUFFER, pre_buffer=False)
        self.rows = file.iter_batches(batch_size=1, row_groups=[group.number], columns=[column], use_threads=False)
        self.row: Any = None

    def reaches(self, index: int) -> bool:
        # A forked worker inherits its parent's cursor and must not read on from it.
        return self.process == os.getpid() and self.index <= index < self.group.end

    def advance(self, index: int) -> Any:
        while self.index < index:
            batch = next(self.rows, None)
            if batch is None:
                raise OSError(f"row group {self.group.number} ends before the row that its footer promises")
            self.index, self.row = self.index + 1, batch.column(0)
        return self.row


class ParquetColumn:
    """One column of a series of files: ``column[index]`` is a row as an array, its shape the lengths of the lists.

    Rows in ascending order are read in one pass, nothing twice, with a row and a few pages in memory. Any other order
    works, but each step back, or into another file, reads its row group from the start.

    Args:
        groups: row groups of the files, in order.
        name: of the column.

    Raises:
        ValueError: on reading, data are damaged or lists make no array; the message names file and row.
    """

    def __init__(self, groups: Sequence[RowGroup], name: str) -> None:
        self.groups, self.name = list(groups), name
        self._cursor: _Cursor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cursor": None}  # a worker opens its own file

    def group(self, index: int) -> RowGroup:
        """The row group that holds a row.

        Args:
            index: row number, from 0.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= index < self.groups[-1].end:
            raise IndexError(f"row {index}: there are {self.groups[-1].end}.")
        return self.groups[bisect_right([group.first for group in self.groups], index) - 1]

    def __getitem__(self, index: int) -> Array:
        group, cursor, self._cursor = self.group(index), self._cursor, None  # an error leaves no cursor behind
        with readable(group.path):
            if cursor is None or not cursor.reaches(index):
                cursor = _Cursor(group, self.name)
            row = cursor.advance(index)
        self._cursor = cursor
        try:
            return _unnest(row)
        except ValueError as error:
            raise ValueError(
                f"{group.path}: row {index - group.first} of row group {group.number}, column "
                f"{self.name!r}: {error}; fetch this file again."
            ) from None


def _unnest(row: Any) -> Array:
    """The array of a one-row Arrow array of nested lists; raises ValueError for unequal lengths and missing values."""
    import pyarrow.compute as pc  # it is installed: it made the row

    values, shape = getattr(row, "storage", row), []
    while hasattr(values.type, "value_type"):
        lengths = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(lengths) != 1 or not lengths[0]:  # None where a list is missing
            raise ValueError(f"its lists have the lengths {lengths[:5]}, expected one length for all")
        shape.append(lengths[0])
        values = values.flatten()
    if values.null_count:
        raise ValueError(f"{values.null_count} of its numbers are missing")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)
