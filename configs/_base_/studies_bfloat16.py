"""Small rooms whose experts and adaptations are trained in bfloat16, for studies of many runs.

On a CPU with AVX-512 in bfloat16 that takes 0.7 of the time of float32: docs/benchmarks.md has the command.
"""

from mmengine.config import read_base

with read_base():
    from .studies import *

experts["recipe"].update(amp=True)
adaptation.update(amp=True)
