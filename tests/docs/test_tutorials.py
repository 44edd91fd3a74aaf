"""The tutorials, run as they are printed, one after the other in one folder, as a reader would.

Only networks that the pages train are smaller ones; those that they import are the printed ones.
"""

import json
import re
from pathlib import Path

import pytest
from builders.prepared_python import NETWORK_WORDS, run_printed, with_smaller_network
from safetensors import safe_open

from symerge_dense.commands.cli import main

ROOT = Path(__file__).parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
BLOCK = re.compile(r'^```(?:python title="([^"]+)"|(sh))\n(.*?)^```$', re.DOTALL | re.MULTILINE)
PAGES = (
    "own_data",
    "predict_and_export",
    "own_experts",
    "own_task",
    "own_method",
    "no_labels",
    "reading_the_report",
)  # in the order in which they build on each other
SHIPPED = "symerge train rooms_symerge"  # the config is not the page's; the line ends with its options


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """(folder, what each command printed) after all files were written and all commands run, in the pages' order.

    The last one is the contract test of a wrong task, whose command is none of the pages', for it ends with 1.
    """
    folder, lines = tmp_path_factory.mktemp("lab"), []
    for page in PAGES:
        for name, shell, code in BLOCK.findall((TUTORIALS / f"{page}.md").read_text("utf-8")):
            lines += code.splitlines() if shell else []
            if name:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(with_smaller_network(code))
    assert len(lines) > 8 and all(line.startswith(("python ", "symerge ")) for line in lines)
    lines = [" ".join([line, *NETWORK_WORDS]) if line.startswith(SHIPPED) else line for line in lines]
    return folder, run_printed([*lines, "! python -m symerge_dense.testing my_lab.wrong"], folder)


@pytest.fixture(scope="module")
def lab(outputs):
    """(folder, what the pages' commands printed)."""
    folder, printed = outputs
    return folder, "".join(printed[:-1])


def test_own_data_become_one_model_and_a_plugin_task_stands_beside_the_others(lab):
    folder, _ = lab
    for config, more in (("my_config", []), ("my_saliency_config", ["saliency"])):
        (path,) = folder.glob(f"work_dirs/{config}/*/results.json")
        results = json.loads(path.read_text())
        assert list(results["merged"]["tasks"]) == ["segmentation", "depth", *more]
        assert results["experts"]["tasks"]["segmentation"]["pixel_accuracy"]["value"] > 0
    assert (
        len(list((folder / "work_dirs" / "experts" / "my_lab").glob("depth-*"))) == 1
    )  # both configs found one expert


def test_a_model_predicts_photos_and_a_film_and_its_numbers_are_read_back(lab):
    folder, printed = lab
    assert len(list((folder / "predictions/panels").glob("*.jpg"))) == 8
    assert (folder / "predictions/panels/film.mp4").is_file() and (folder / "overlay.png").is_file()
    assert "8 images, {'segmentation': (64, 96), 'depth': (1, 64, 96)}" in printed
    assert "depth (64, 96) float32 m" in printed and "007.png class 1, the floor, covers" in printed
    assert re.search(r"one model is [\d.]+ times as fast", printed)


def test_the_check_prints_what_the_page_shows(lab, monkeypatch, capsys):
    folder, printed = lab
    page = (TUTORIALS / "own_data.md").read_text("utf-8")
    table, faults = re.findall(r"^```\n((?: +Labels|fault).*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert all(line.rstrip() in printed for line in table.splitlines())
    assert printed.count("no faults, no warnings") == 3 and (folder / "sheet.png").is_file()
    monkeypatch.chdir(folder)
    assert main(["check", "my_config.py", "--cfg-options", "data.train.targets.depth.scale=None"]) == 1
    assert capsys.readouterr().out.endswith(faults)


def test_two_trained_models_become_one_by_the_printed_command(lab):
    folder, printed = lab
    page = (TUTORIALS / "own_experts.md").read_text("utf-8")
    command = next(line for line in page.splitlines() if line.startswith("symerge merge --method ties"))
    assert f"  {command}" in printed.splitlines()  # as the import says at its end
    assert (folder / "imported/merged.safetensors").is_file() and "120 tensors merged" in printed
    assert page.split("python use_imported.py\n```\n\n```\n")[1].split("\n")[0] in printed


def test_a_model_is_exported_and_used_by_other_programs(lab):
    folder, printed = lab
    differences = re.findall(r"depth: largest difference (\S+) from PyTorch .* on 8 images in onnxruntime", printed)
    assert len(differences) == 1 and 0 < float(differences[0]) < 1e-4
    assert (
        "segmentation (1, 4, 64, 96) ['wall', 'floor', 'box', 'ball']" in printed
        and "depth (1, 1, 64, 96) m" in printed
    )
    assert len(list((folder / "predictions_onnx/panels").glob("*.jpg"))) == 8
    assert ".load_state_dict(load_file('backbone.safetensors'))" in printed
    assert "license: cc-by-4.0" in (folder / "my_model/README.md").read_text()
    assert "['depth', 'segmentation'] (64, 96)\n(64, 96)" in printed


def test_own_experts_are_merged_and_predict(lab):
    folder, printed = lab
    assert (folder / "merged_run/merged.safetensors").is_file()
    assert "{'segmentation': (4, 64, 96), 'depth': (1, 64, 96)}" in printed


def test_own_tasks_stand_beside_the_others(lab):
    (path,) = lab[0].glob("work_dirs/saliency_config/*/results.json")
    results = json.loads(path.read_text())
    assert list(results["merged"]["tasks"]) == ["saliency", "depth", "near"]
    assert all(list(results["merged"]["tasks"][task]) == ["abs", "f1"] for task in ("saliency", "near"))


def test_own_methods_merge_files_and_stand_in_the_table(lab):
    folder, _ = lab
    with safe_open(folder / "merged.safetensors", "pt") as file:
        assert all(name.startswith("backbone.") for name in file.keys())  # noqa: SIM118 - a file handle
    (path,) = folder.glob("work_dirs/my_experts_config_compare/*/compare.json")
    rows = {row["method"]: row for row in json.loads(path.read_text())["rows"]}
    assert set(rows) == {"experts", "experts_views", "my_method", "slow_heads", "average"}
    assert not any("error" in row for row in rows.values())
    assert rows["my_method"]["tuning"]["argument"] == "scale"


def test_expert_files_and_photos_are_enough(lab):
    """The command, the config and the function end in the same model, which says how far it agrees with the experts."""
    folder, printed = lab
    models = [(folder / name / "merged.safetensors").read_bytes() for name in ("holiday_run", "holiday_again")]
    assert models[0] == models[1] and (folder / "holiday.safetensors").is_file()
    record = json.loads((folder / "holiday_run" / "results.json").read_text())
    merged = record["agreement"]["rows"]["merged"]["tasks"]
    assert f"agreement: {merged['segmentation']['pixel_accuracy']['value']:.1f} % of pixels" in printed
    assert "agreement with the experts on 2 held-out images (not accuracy: no labels)" in printed
    assert "experts" not in record and "delta_m" not in record


def test_contracts_of_plugins_are_tested_as_printed(lab, outputs):
    _, printed = lab
    for kind in ("task saliency", "merger my_method", "adaptive method slow_heads"):
        assert f"{kind} (my_lab." in printed
    assert printed.count("contracts are kept.") == 3 and "BROKEN" not in printed
    page = (TUTORIALS / "own_task.md").read_text("utf-8")
    shown = {line for line in page.splitlines() if re.match(r"  ok |task |All \d", line)}
    assert len(shown) == 8 and shown <= set(printed.splitlines())
    told = page[page.index("  BROKEN") : page.index("```", page.index("  BROKEN"))]
    assert told in outputs[1][-1]
