"""Where the time of the main job goes: a small copy of it from nothing, stage by stage."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.profiling.table import Row
from symerge_dense.pipeline.train import train
from symerge_dense.progress import say, silent
from symerge_dense.report.results import read_json

CONFIG = "rooms_symerge"
FRAMES, EPOCHS, ROUNDS = 64, 1, 20
REDUCED = {
    **{f"data.{split}.count": FRAMES for split in ("train", "unlabelled", "test")},
    "base.train.recipe.epochs": EPOCHS,
    "experts.recipe.epochs": EPOCHS,
    "adaptation.rounds": ROUNDS,
    "adaptation.recalibration_images": FRAMES,
    "baselines.scales": [0.3],
}


def demo_rows() -> list[Row]:
    """The stages of the demo at a few frames, epochs and rounds: rendering, experts, labels and adaptation, ...

    Returns:
        One row for the whole, and one a stage; the memory of the whole is its peak.
    """
    say("the main job in small")
    # its table would be mistaken for a result
    with tempfile.TemporaryDirectory() as folder, silent(), contextlib.redirect_stdout(io.StringIO()):
        places = {f"data.{split}.root": f"{folder}/rooms" for split in ("train", "unlabelled", "test")}
        config = load_config(CONFIG, {**REDUCED, **places, "experts.folder": f"{folder}/experts"})
        train(config, work_dir=f"{folder}/run")
        results = read_json(Path(folder) / "run" / "results.json")
    seconds = {"all stages": sum(results["timings"].values()), **results["timings"]}
    case = f"{CONFIG}: {FRAMES} frames a split, {EPOCHS} epoch, {ROUNDS} rounds"
    return [
        Row(
            case,
            stage,
            spent,
            round(spent / seconds["all stages"], 3),
            mebibytes=results["peak_memory_mb"] if stage == "all stages" else None,
        )
        for stage, spent in seconds.items()
    ]
