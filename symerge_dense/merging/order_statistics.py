"""Exact order statistics of numbers that are never in memory together: the global thresholds of TIES, PCB and others.

A quantile over all weights of a model would need them in one vector. Here a sample brackets the wanted number. One
reading of the stream then counts what lies below the bracket and, float by float, what lies inside, which gives the
number exactly. Where the sample misled, or there is none, the bracket becomes all floats, counted in 65,536 bins; a
further reading counts the bin that holds the rank, float by float. Floats are counted by integer keys in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from threading import Lock
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Reading: TypeAlias = Literal["all", "sample", "nothing"]
Bracket: TypeAlias = tuple[int, int]  # least and largest key
FLOATS: Bracket = (-0x7F800001, 0x7F800000)  # keys of -inf and inf
TABLE = 1 << 21  # a bracket of at most so many keys has one count per key
BITS = 16  # log2 of the number of bins of a wider bracket
PENDING = 1 << 19  # keys gathered before they are counted: every counting walks the whole table
LEAST, ENOUGH = 1 << 14, 1 << 22  # a smaller sample is not used; a larger one grows no further
MARGIN = 0.003  # share of the sample on either side of a rank, beyond chance: neighbouring weights are alike


class OrderStatistics:
    """The numbers at chosen ranks of a stream, known after at most ``readings`` readings of it.

    Before each reading ``reads`` tells what it must see. Numbers are taken as float32: round float64 numbers to float32
    before comparing them with a result, or ties with the threshold are split. A NaN makes the result undefined.

    Args:
        ranks: gets the length of the stream, or of a sample, and returns the wanted ranks, from 0 (the smallest) to
            length - 1.
    """

    readings = 4

    def __init__(self, ranks: Callable[[int], Sequence[int]]) -> None:
        self.values: tuple[float, ...] = ()
        self._ranks = ranks
        self._lengths: list[int] = []  # of the parts
        self._sample: list[NDArray[np.float32]] = []
        self._brackets: list[Bracket] = []  # one for each rank
        self._tables: dict[Bracket, _Table] = {}

    def reads(self, number: int) -> Reading:
        """What a reading must see.

        Args:
            number: number of the reading, from 0.

        Returns:
            'sample' for the first (leaving it out is allowed but slower), then 'all', or 'nothing' once all is known.
        """
        if number == 0:
            return "sample"
        return "all" if self._tables else "nothing"

    def read(self, number: int, values: Tensor) -> None:
        """Take a part of the stream, or of the sample.

        Parts may come in any order, from several threads at once.

        Args:
            number: number of the reading, from 0.
            values: the numbers, of any shape.
        """
        flat = values.reshape(-1).float()
        if number == 0 and sum(map(len, self._sample)) < ENOUGH:
            self._sample.append(flat.cpu().numpy().copy())
        if number == 1:
            self._lengths.append(flat.numel())
        for table in self._tables.values():
            table.count(flat)

    def close(self, number: int) -> None:
        """Finish a reading. After the last, ``values`` holds the numbers in the order of the ranks.

        An empty stream has no ranks and no values.

        Args:
            number: number of the reading, from 0.
        """
        if number == 0:
            self._seek(self._guess())
        elif self._tables:
            length = sum(self._lengths)
            ranks = self._ranks(length) if length else ()
            within = self._brackets or [FLOATS] * len(ranks)
            self._seek(
                [
                    self._tables[bracket].narrow(rank) if bracket in self._tables else bracket
                    for bracket, rank in zip(within, ranks, strict=False)
                ]
            )
            self.values = tuple(_number(low) for low, _ in self._brackets)

    def _seek(self, brackets: list[Bracket]) -> None:
        self._brackets = brackets
        self._tables = {bracket: _Table(*bracket) for bracket in brackets or [FLOATS] if bracket[0] < bracket[1]}

    def _guess(self) -> list[Bracket]:
        """A bracket for every rank, from the sample; none where the sample is too small."""
        sample = np.concatenate([np.empty(0, np.float32), *self._sample])
        self._sample.clear()
        count = len(sample)
        if count < LEAST:
            return []
        reach = int(MARGIN * count + 1.5 * math.sqrt(count))  # chance: three standard deviations, or more
        ends = [(rank - reach, rank + reach) for rank in self._ranks(count)]
        places = sorted({end for pair in ends for end in pair if 0 <= end < count})
        keys = dict(zip(places, _keys(np.partition(sample, places)[places]).tolist(), strict=True)) if places else {}
        pairs = [(keys.get(low, FLOATS[0]), keys.get(high, FLOATS[1])) for low, high in ends]
        return [(min(low, high - 1), high) for low, high in pairs]


class _Table:
    """The counts of one reading for one bracket: how many numbers lie below it, and how many in each of its bins."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high - (high == -1)  # -1 would be the key of -0.0, but both zeros have the key 0
        self.shift = 0 if high - low < TABLE else (high - low).bit_length() - BITS
        self.counts = np.zeros((high - low >> self.shift) + 1, np.int64)
        self.below = 0
        self._ends = _number(self.low), _number(self.high)
        self._least, self._most = FLOATS[::-1]
        self._pending: list[NDArray[np.int32]] = []
        self._waiting = 0
        self._lock = Lock()

    def count(self, numbers: Tensor) -> None:
        if (self.low, self.high) == FLOATS:
            below, inside = 0, numbers.nan_to_num(0.0, math.inf, -math.inf)  # NaN has no key
        else:
            below, inside = _split(numbers, *self._ends)
        keys = _keys(inside.cpu().numpy())
        with self._lock:
            self.below += below
            self._pending.append(keys)
            self._waiting += len(keys)
            if self._waiting >= PENDING:
                self._enter()

    def narrow(self, rank: int) -> Bracket:
        """The bracket of the bin that holds ``rank``; the floats below or above where the rank is not inside."""
        self._enter()
        rank -= self.below
        reached = self.counts.cumsum()
        if rank < 0:
            return FLOATS[0], self.low - 1
        if rank >= reached[-1]:
            return self.high + 1, FLOATS[1]
        if rank in (0, reached[-1] - 1):
            return (self._most, self._most) if rank else (self._least, self._least)
        start = self.low + (int(np.searchsorted(reached, rank, "right")) << self.shift)
        return start, min(start + (1 << self.shift) - 1, self.high)

    def _enter(self) -> None:
        keys = np.concatenate([np.empty(0, np.int32), *self._pending])
        self._pending.clear()
        self._waiting = 0
        if len(keys):
            self._least, self._most = min(self._least, int(keys.min())), max(self._most, int(keys.max()))
            bins = np.subtract(keys, self.low, dtype=np.int64)
            self.counts += np.bincount(np.right_shift(bins, self.shift, out=bins), minlength=len(self.counts))


def most(readings: Collection[Reading]) -> Reading:
    """The reading that serves several statistics at once.

    Args:
        readings: what each of them must see.
    """
    return "all" if "all" in readings else "sample" if "sample" in readings else "nothing"


def _split(numbers: Tensor, low: float, high: float) -> tuple[int, Tensor]:
    """How many numbers are below ``low``, and those in [low, high]."""
    if numbers.device.type != "cpu":
        return int((numbers < low).sum()), numbers[(numbers >= low) & (numbers <= high)]
    array = numbers.numpy()  # NumPy compares and selects several times faster than PyTorch on a CPU
    inside = array >= low
    below = array.size - int(np.count_nonzero(inside))
    inside &= array <= high
    return below, torch.from_numpy(array.compress(inside))


def _keys(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """int32 keys that order like the numbers; both zeros get the key 0."""
    bits = (values + np.float32(0.0)).view(np.int32)
    keys: NDArray[np.int32] = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return keys


def _number(key: int) -> float:
    bits = key ^ ((key >> 31) & 0x7FFFFFFF)
    return float(np.array(bits, np.int64).astype(np.int32).view(np.float32))
