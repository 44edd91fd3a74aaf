"""The processes of a distributed run: they meet, and speak with one voice where one of them fails."""

from __future__ import annotations

import atexit
import hashlib
import os

import torch
from mmengine.dist import init_dist, is_distributed
from torch.distributed import DistNetworkError, DistStoreError
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

# gloo and NCCL raise plain RuntimeErrors, for other faults too
GONE = "Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "ncclRemoteError"
_place: Store | None = None  # where the processes of this run have met


def join_processes(launcher: str) -> None:
    """Join the process group of a distributed run: NCCL with CUDA, gloo on CPUs.

    Args:
        launcher: 'none', 'pytorch' or 'slurm'.

    Raises:
        ValueError: another launcher than 'none' or 'pytorch' without CUDA, or the processes do not meet.
    """
    if launcher == "none" or is_distributed():
        return
    if not torch.cuda.is_available() and launcher != "pytorch":
        raise ValueError(f"launcher={launcher!r} without CUDA; on CPUs use 'none' or 'pytorch' (torchrun).")
    try:
        if torch.cuda.is_available():
            init_dist(launcher, backend="nccl")
        else:  # MMEngine's own initialisation needs CUDA
            torch.distributed.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:
        raise _not_met(launcher, error) from error
    atexit.register(_leave_processes)
    meet()


def meet() -> tuple[Store, int, int]:
    """Find the processes that torchrun started, without forming a group.

    Returns:
        What they share notes by, the number of this process, and how many there are.

    Raises:
        ValueError: torchrun did not start this process.
    """
    global _place
    try:
        _place, rank, processes = next(rendezvous("env://"))
    except (RuntimeError, ValueError) as error:
        raise _not_met("pytorch", error) from error
    return _place, rank, processes


def _not_met(launcher: str, error: Exception) -> ValueError:
    how = "srun" if launcher == "slurm" else "torchrun --nproc_per_node N"
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return ValueError(
        f"--launcher {launcher}: the processes do not meet ({first}); start this by {how} ..., or leave it out."
    )


def _leave_processes() -> None:
    """End the group before the interpreter does: threads of gloo that outlive it now and then abort the process."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


# -- one message, where one process fails and ends all ----------------------------------------------------------------
def has_lost_another(error: Exception) -> bool:
    """Whether an error only says that another process of this run is gone.

    Args:
        error: of this process.
    """
    if _place is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, DistNetworkError | DistStoreError) or any(words in str(error) for words in GONE)


def is_first_to_say(text: str, aftermath: bool = False) -> bool:
    """Whether this process is to print a message: no other one of this run has printed it before.

    They know it by the notes that torchrun keeps as long as one of them lives. Without it each prints its own.

    Args:
        text: the message.
        aftermath: it says no more than that the run ends, for which it is enough that one process has said why.
    """
    if _place is None or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    trial = f"symerge/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    own = f"{trial}/{hashlib.sha256(text.encode()).hexdigest()}"
    try:
        first = bool(_place.add(f"{trial}/ended", 1) == 1)
        return first if aftermath else bool(_place.add(own, 1) == 1)
    except RuntimeError:  # their keeper has been killed
        return True
