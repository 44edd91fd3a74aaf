"""The short part of ``make torture``, and a job that loses files: the harness must see it."""

import pytest

from faults.jobs import JOBS, Job
from faults.torture import CALLS, DISKS, KILLS, shared, torture

CARELESS = """
import sys, time
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
(folder / "begun.json").write_text("{}")
if not (folder / "result.json").exists():
    with (folder / "result.json").open("w") as file:
        file.write('{"seconds": 0.1, ')
        file.flush()
        time.sleep(0.6)
        file.write('"number": 1}')
"""


@pytest.mark.parametrize("name", ["file merge, shards", "conversion"])
def test_a_killed_job_ends_like_one_that_nobody_disturbed(name):
    job = next(job for job in JOBS if job.name == name)
    told = []
    counts = torture(job, 2, 0, told.append).counts
    assert counts["kills"] == 2 and counts["losses"] == counts["half-written"] == 0, told


def test_a_job_that_writes_under_the_final_name_is_caught():
    def prepare(given, made):
        (given / "careless.py").write_text(CARELESS)
        return [given / "careless.py", made]

    told = []
    counts = torture(Job("careless", 1, prepare), 4, 0, told.append).counts
    assert counts["kills"] == 4 and counts["losses"] >= 1 and counts["half-written"] >= 1, told
    assert any(line.startswith("    result.json: ") for line in told)


def test_make_torture_has_all_that_it_says_and_every_job_its_part():
    parts = shared(JOBS, KILLS, DISKS, CALLS)
    assert tuple(map(sum, zip(*parts.values(), strict=True))) == (KILLS, DISKS, CALLS)
    for job, (kills, disks, calls) in parts.items():
        assert disks and calls and bool(kills) == (not job.full), job.name  # a disk of its own changes no kill
