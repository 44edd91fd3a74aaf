"""Cost of merging and packing large checkpoints, against a plain pass that reads every byte and writes one checkpoint.

Every contender runs in a process of its own: python -m symerge_dense.pipeline.profiling.file_merge FOLDER CONTENDER
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from symerge_dense.fileio import atomic_write, nearest_existing
from symerge_dense.merging.safetensors_writer import TensorFile
from symerge_dense.merging.sources import TensorLayout
from symerge_dense.pipeline.file_merge.merge import FileMerge
from symerge_dense.pipeline.file_merge.pack import FilePack
from symerge_dense.pipeline.file_merge.plan import check_needs
from symerge_dense.pipeline.file_merge.unpack import FileUnpack
from symerge_dense.pipeline.method_options import method_of
from symerge_dense.pipeline.profiling.table import Row, check_positive, contest
from symerge_dense.progress import silent, track

PLAIN, PACK, UNPACK = "plain pass", "pack", "unpack"
PACKED = "packed.safetensors"  # what the second writes and the third reads
WIDTH = 2048
MATRICES = ("query.weight", "key.weight", "value.weight")
POOL = 1 << 23  # number of random values that all tensors are cut from
EVERY = 0.05  # seconds between two readings of a process's memory


@dataclass(frozen=True)
class Cost:
    """Cost of one contender.

    Args:
        seconds: wall time without start-up.
        peak: greatest memory of the process in bytes, without that of files.
    """

    seconds: float
    peak: int


def generate(folder: Path, gigabytes: float, experts: int) -> None:
    """Write random float32 checkpoints, base.safetensors and expert0.safetensors ..., unless they exist.

    They consist of blocks of three square matrices and a bias, at least one.

    Args:
        folder: of the files.
        gigabytes: of each checkpoint.
        experts: number of experts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blocks = max(1, round(gigabytes * 1e9 / (4 * WIDTH * WIDTH * len(MATRICES))))
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(blocks):
        shapes |= {f"blocks.{block}.{name}": (WIDTH, WIDTH) for name in MATRICES}
        shapes[f"blocks.{block}.bias"] = (WIDTH,)
    pool = torch.randn(POOL, generator=torch.Generator().manual_seed(0))
    for number in track(range(-1, experts), "random checkpoints"):
        path = _path(folder, number)
        if not path.exists():
            _generate(path, number, shapes, pool)


def remove(folder: Path) -> None:
    """Remove what ``generate`` wrote, and the folder if it is then empty.

    Args:
        folder: of the files.
    """
    for path in (_path(folder, -1), folder / PACKED, *folder.glob("expert*.safetensors")):
        path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _path(folder: Path, number: int) -> Path:
    return folder / ("base.safetensors" if number < 0 else f"expert{number}.safetensors")


def _generate(path: Path, number: int, shapes: dict[str, tuple[int, ...]], pool: torch.Tensor) -> None:
    with (
        atomic_write(path) as temporary,
        TensorFile(temporary, {name: TensorLayout(shape, torch.float32) for name, shape in shapes.items()}, {}) as file,
    ):
        for index, (name, shape) in enumerate(shapes.items()):
            size = torch.Size(shape).numel()
            value = 0.02 * _cut(pool, index, size)
            if number >= 0:  # task vectors differ in size by block, so that a threshold must be global
                value += 0.001 * (1 + index % 5) * _cut(pool, 1009 * (number + 1) + index, size)
            file.write(name, value.view(shape))


def _cut(pool: torch.Tensor, seed: int, size: int) -> torch.Tensor:
    start = seed * 7919 * 64 % (len(pool) - size)
    return pool[start : start + size]


def plain_pass(inputs: Sequence[Path], out: Path) -> None:
    """Read all tensors of all inputs, one by one, into one buffer, and write those of the first.

    Args:
        inputs: checkpoints of the same shapes.
        out: the file to write.
    """
    files = [path.open("rb") for path in inputs]
    starts = [8 + int.from_bytes(file.read(8), "little") for file in files]
    files[0].seek(8)
    header = json.loads(files[0].read(starts[0] - 8))
    places = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    buffer = memoryview(bytearray(max(end - begin for begin, end in places)))
    with out.open("wb") as target:
        for begin, end in places:
            # in reverse: the first is read last and then written
            for file, start in zip(files[::-1], starts[::-1], strict=True):
                file.seek(start + begin)
                file.readinto(buffer[: end - begin])
            target.write(buffer[: end - begin])
        target.flush()
        os.fsync(target.fileno())
    for file in files:
        file.close()


def measure_merge(folder: Path, contender: str, threads: int, memory: float | None = None) -> Cost:
    """Measure one contender in a process of its own.

    Args:
        folder: has the checkpoints.
        contender: 'plain pass', 'pack', 'unpack' or a method.
        threads: of PyTorch.
        memory: that it may have, see ``measure_process``.

    Raises:
        ValueError: it fails, or takes more memory; the message has what it printed.
    """
    output, peak = measure_process([__name__, str(folder), contender], threads, memory)
    return Cost(float(output), peak)


def measure_process(module: Sequence[str], threads: int, memory: float | None = None) -> tuple[str, int]:
    """Run a module in a process of its own.

    Args:
        module: its name, and its arguments.
        threads: of PyTorch.
        memory: in GB, without that of files: a process that takes more is ended. None sets no limit.

    Returns:
        What it printed, and the greatest memory of the process in bytes, without that of files.

    Raises:
        ValueError: it fails, or takes more memory; the message has what it printed.
    """
    command = [sys.executable, "-m", *module]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        peak = 0
        while child.poll() is None:
            peak = max(peak, own_memory(child.pid))
            if memory is not None and peak > memory * 1e9:
                child.kill()
                raise ValueError(
                    f"{' '.join(module)} takes {peak / 1e9:.2f} GB of memory, and --memory {memory:g} was allowed."
                )
            time.sleep(EVERY)
        output, errors = child.communicate()
    if child.returncode:
        raise ValueError(f"{' '.join(module)} failed: {errors[-2000:]}")
    return output, peak


def merge_rows(
    folder: Path,
    gigabytes: float,
    experts: int,
    methods: Sequence[str],
    threads: int,
    rounds: int,
    memory: float | None = None,
) -> list[Row]:
    """Seconds of merging random checkpoints by some methods, and of packing them; ratios are to the plain pass.

    Args:
        folder: of the checkpoints, which are written if they are missing, and kept.
        gigabytes: of one checkpoint, float32.
        experts: number of experts.
        methods: static methods; 'pack' packs the experts in four bits, 'unpack' takes one of them out again.
        threads: of PyTorch.
        rounds: of every contender, in turn.
        memory: that a contender may have in GB, without that of files; None sets no limit.

    Returns:
        The contenders, with the peak of their own memory, without that of files.

    Raises:
        ValueError: a number is not positive, a method cannot be measured or fails, a contender takes more memory,
            the disk is too small, or the folder has other files.
    """
    numbers = {"gigabytes": gigabytes, "experts": experts, "threads": threads, "rounds": rounds, "memory": memory}
    check_positive(numbers)
    for name in (one for one in methods if one not in (PACK, UNPACK)):
        _check_method(name)
    _check_place(folder, gigabytes, experts)
    generate(folder, gigabytes, experts)
    before = methods[: methods.index(UNPACK)] if UNPACK in methods else [PACK]
    if PACK not in before and not (folder / PACKED).exists():
        work(folder, PACK)
    contenders = [PLAIN, *methods]
    costs = [
        {name: measure_merge(folder, name, threads, memory) for name in contenders}
        for _ in track(range(rounds), "merges")
    ]
    limit = "" if memory is None else f", at most {memory:g} GB of memory"
    return contest(
        f"{experts} experts of {gigabytes:g} GB{limit}",
        [{name: cost.seconds for name, cost in turn.items()} for turn in costs],
        mebibytes={name: max(turn[name].peak for turn in costs) / 2**20 for name in contenders},
    )


def _check_method(name: str) -> None:
    merger = method_of(name)
    check_needs(merger)
    if merger.per_task:
        raise ValueError(f"{name} gives every task weights of its own, not one file; choose another method.")


def _check_place(folder: Path, gigabytes: float, experts: int) -> None:
    if _path(folder, -1).exists():
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} exists and is no folder of a former run; choose another one.")
    needed = gigabytes * (experts + 2 + experts / 7)  # base, experts, one output, and the experts in four bits
    free = shutil.disk_usage(nearest_existing(folder)).free / 1e9
    if needed > free:
        raise ValueError(
            f"{folder}: the checkpoints need {needed:.1f} GB, and {free:.1f} are free; choose fewer --gigabytes or "
            "--experts, or another --dir."
        )


def own_memory(process: int) -> int:
    """Memory of a process without that of files (RssAnon of Linux).

    Args:
        process: its id.

    Returns:
        Bytes; 0 when the process has ended.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def work(folder: Path, contender: str) -> float:
    """Run one contender and remove what it wrote, unless it is what another one unpacks.

    Args:
        folder: has the checkpoints.
        contender: 'plain pass', 'pack', 'unpack' or a method.

    Returns:
        Seconds of the work.
    """
    base, *paths = [_path(folder, -1), *sorted(folder.glob("expert*.safetensors"))]
    out = folder / f"out_{contender.replace(' ', '_')}.safetensors"
    out.unlink(missing_ok=True)
    experts = {path.stem: str(path) for path in paths}
    merger = None if contender in (PLAIN, PACK, UNPACK) else method_of(contender)
    start = time.perf_counter()
    with silent():
        if merger is not None:
            FileMerge(merger, str(base), experts, str(out)).merge()
        elif contender == PACK:
            FilePack(str(base), experts, str(folder / PACKED), overwrite=True).write()
        elif contender == UNPACK:
            FileUnpack(str(folder / PACKED), str(base), next(iter(experts)), str(out)).write()
        else:
            plain_pass([base, *paths], out)
    seconds = time.perf_counter() - start
    out.unlink(missing_ok=True)
    return seconds


if __name__ == "__main__":
    print(work(Path(sys.argv[1]), sys.argv[2]))
