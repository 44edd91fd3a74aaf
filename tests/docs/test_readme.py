"""README's worked example, a package outside the repository, executed as it is printed, with a smaller network."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from builders import tiny
from builders.films import write_film
from builders.photos import write_photos
from builders.prepared_python import run_printed, with_smaller_network
from safetensors.torch import save_file

from symerge_dense.datasets.rooms.dataset import Rooms
from symerge_dense.models.checkpoint import save_model, state_hash

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
FILE = re.compile(r"`([\w/]+\.py)`[^`]*?:\n\n```python\n(.*?)```", re.DOTALL)
EXAMPLE = README[README.index("## Add a dense task") : README.index("## How a run is laid out")]
FRAME = (64, 96)


def write_labelled(root):
    """Rendered rooms as somebody's photos: JPEG, depth in millimetres, saliency (here: brightness) in 0..255."""
    rooms = Rooms("train", root / "rooms", count=16, size=FRAME, tasks={"depth": {}, "albedo": {}})
    for split, numbers in {"train": range(8), "val": range(8, 12), "test": range(12, 16)}.items():
        (root / "photos" / split).mkdir(parents=True)
        for number in numbers:
            stem = str(root / "photos" / split / f"{number:04}")
            cv2.imwrite(f"{stem}.jpg", cv2.cvtColor(rooms.image(number), cv2.COLOR_RGB2BGR))
            cv2.imwrite(f"{stem}_depth.png", (rooms.target(number, "depth") * 1000).astype(np.uint16))
            cv2.imwrite(f"{stem}_saliency.png", (rooms.target(number, "albedo").max(-1) * 255).astype(np.uint8))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(an empty folder with photos and the example's files, {what: output of its command}), the look in a minute."""
    folder = tmp_path_factory.mktemp("somewhere")
    write_labelled(folder)
    files = dict(FILE.findall(EXAMPLE))
    assert list(files) == ["my_lab/saliency.py", "photos_symerge.py"]
    code = EXAMPLE[EXAMPLE.rindex("```python\n") + 10 : EXAMPLE.rindex("```")]
    more = {"predict.py": code, "forgot.py": code.replace("import my_lab.saliency\n", "")}
    for name, text in (files | more).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(with_smaller_network(text))
    (check,) = (line for line in EXAMPLE.splitlines() if line.startswith("python -m "))
    train, merge, compare, test = (line for line in EXAMPLE.splitlines() if line.startswith("symerge "))
    (look,) = re.findall(r"`(--cfg-options base.pretrained=False[^`]*)`", EXAMPLE.replace("\n", " "))
    lines = [check, f"{train} {look}", merge, f"{compare} {look}", f"{test} {look}"]
    outputs = run_printed([*lines, "python predict.py", "! python forgot.py"], folder)
    kinds = ("check", "train", "merge", "compare", "test", "predict", "forgot")
    return folder, dict(zip(kinds, outputs, strict=True))


def test_the_example_trains_and_merges_as_printed(lab):
    folder, printed = lab
    assert re.search(r"^All \d+ contracts are kept\.$", printed["check"], re.MULTILINE)
    results = json.loads((folder / "run" / "results.json").read_text())
    for row in ("experts", "average", "task_arithmetic", "initial", "merged"):
        assert list(results[row]["tasks"]) == ["saliency", "depth"]
        assert results[row]["tasks"]["saliency"]["abs"]["value"] > 0
    assert (folder / "run" / "panels.png").stat().st_size > 10_000


def test_the_other_commands_run_as_printed(lab):
    folder, printed = lab
    assert (folder / "ties.safetensors").exists()
    rows = json.loads((folder / "table" / "compare.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"experts", "experts_views", "symerge", "ties", "average"}
    assert all("error" not in row and "saliency" in row["tasks"] for row in rows)
    assert "saliency" in printed["test"]


def test_the_merged_model_predicts_as_printed_and_says_what_it_needs(lab):
    _, printed = lab
    assert printed["predict"].strip() == "torch.Size([1, 64, 96]) torch.Size([1, 64, 96])"
    assert re.search(r"unknown task 'saliency'.*my_lab\.saliency", printed["forgot"])


def test_every_file_and_target_that_readme_names_exists():
    example = {name for name, _ in FILE.findall(README)}
    named = set(re.findall(r"(?:configs|docs|tools|symerge_dense)/[\w/]+\.(?:py|md|png|sh)", README)) - example
    assert named
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets) and README.index("make demo") < README.index("make test") < 1200


# -- the first screen -------------------------------------------------------------------------------------------------
def first_screen(language):
    story = README[README.index("## I have two trained models") : README.index("## What `make demo` prints")]
    return re.search(rf"^```{language}\n(.*?)^```$", story, re.DOTALL | re.MULTILINE)[1]


@pytest.fixture(scope="module")
def owner(tmp_path_factory):
    """A folder with what README's first screen begins with: experts, base, photos, a video; its commands were run."""
    folder = tmp_path_factory.mktemp("owner")
    base, experts, _ = tiny.family()
    save_file({f"backbone.{name}": value for name, value in base.state_dict().items()}, folder / "base.safetensors")
    for task, name in {"depth": "depth", "segmentation": "segmentation"}.items():
        save_model(folder / f"{name}.safetensors", experts[task], {"base_hash": state_hash(base.state_dict())})
    shutil.copy(folder / "segmentation.safetensors", folder / "seg.safetensors")
    for name, count in {"photos": 10, "more_photos": 2}.items():
        write_photos(folder / name, count)
    shutil.copy(next((folder / "photos").iterdir()), folder / "photo.jpg")
    write_film(folder / "video.mp4", 3)
    lines = re.sub(r"\\\n\s*", "", first_screen("")).replace("480 640", "32 48").splitlines()
    assert [line.split()[1] for line in lines] == ["train", "predict", "export", "report"]
    lines[0] += " --cfg-options adaptation.rounds=2 adaptation.batch_size=4"
    code = first_screen("python").replace("(480, 640)", "(32, 48), rounds=2, batch_size=4")
    shape = "cv2.imread('photo.jpg').shape[:2]"
    (folder / "first.py").write_text(f"import cv2\n{code}\nassert predictor('photo.jpg')['depth'].shape == {shape}\n")
    run_printed([*lines, "python first.py"], folder)
    return folder


def test_the_first_screen_makes_one_model_predicts_exports_and_reports(owner):
    """And the same in Python, whose script ends with a check of its own."""
    results = json.loads((owner / "merged" / "results.json").read_text())
    assert set(results["agreement"]["rows"]["merged"]["tasks"]) == {"depth", "segmentation"}
    assert len(list((owner / "predictions").rglob("*.jpg"))) == 2 and list((owner / "predictions").rglob("*.mp4"))
    assert (owner / "model.onnx").stat().st_size > 1000
    assert "<html" in (owner / "report.html").read_text()
