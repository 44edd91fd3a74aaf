"""Hub folders without a network: what is written is read again, and the card says what the run's record says."""

import copy
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from builders.tiny import family
from huggingface_hub import ModelHubMixin, hub_mixin
from safetensors import safe_open

from symerge_dense.inference.predictor import Predictor
from symerge_dense.models.checkpoint import load_model, save_model
from symerge_dense.models.hub import WEIGHTS
from symerge_dense.models.multi_task import MultiTaskModel

RESULTS = {
    "config": {
        "tasks": {"segmentation": {}, "depth": {}, "normals": {}},
        "data": {"test": {"type": "Rooms", "root": "/home/me/rooms"}, "train": {"type": "Rooms"}},
        "base": {"checkpoint": "/home/me/resnet.pth"},
    },
    "seed": 7,
    "commit": "abc",
    "versions": {"torch": "2.6"},
    "delta_m_metrics": {"segmentation": "mIoU", "depth": "abs"},
    "experts": {"tasks": {"segmentation": {"mIoU": {"value": 44.98}}, "depth": {"abs": {"value": 0.5771}}}},
    "merged": {"tasks": {"segmentation": {"mIoU": {"value": 43.2}}, "depth": {"abs": {"value": None}}}},
    "delta_m": {"merged": {"mean": -2.18}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model from its file, with a record of how it was adapted."""
    path = tmp_path_factory.mktemp("model") / "merged.safetensors"
    save_model(path, family()[2], {"training": {"rounds": 300}, "image_size": [32, 48]})
    return load_model(path)[0]


@pytest.fixture
def run(tmp_path, model):
    """A run's folder, with one expert of known licence."""
    save_model(tmp_path / "depth.safetensors", model, {"license": "cc-by-nc-4.0"})
    config = {**RESULTS["config"], "experts": {"checkpoints": {"depth": str(tmp_path / "depth.safetensors")}}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json.dumps({**RESULTS, "config": config}))
    (tmp_path / "run" / "panels.png").write_bytes(b"a picture")
    return tmp_path / "run"


def test_a_folder_is_read_as_it_was_written(tmp_path, model):
    assert isinstance(model, ModelHubMixin) and model.save_pretrained(tmp_path / "mine") is None
    again = MultiTaskModel.from_pretrained(tmp_path / "mine")
    assert type(again) is MultiTaskModel and not again.training and again.image_size == (32, 48)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert again.record["training"] == {"rounds": 300}
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert config["library_name"] == "symerge_dense" and config["model"] == model.spec
    with safe_open(tmp_path / "mine" / WEIGHTS, "pt") as file:
        assert json.loads(file.metadata()["symerge_dense"])["hash"] == config["hash"]
    image = np.zeros((32, 48, 3), np.uint8)
    assert set(Predictor(tmp_path / "mine", device="cpu", tasks=["depth"])(image)) == {"depth"}
    assert sorted(path.suffix for path in (tmp_path / "mine").iterdir()) == [".json", ".md", ".safetensors"]


def test_config_json_is_not_what_builds_the_network(tmp_path, model):
    model.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "config.json").write_text('{"backbone": {"name": "resnet18"}, "heads"')
    assert MultiTaskModel.from_pretrained(tmp_path / "mine").backbone.name == "resnet10t"


def test_the_code_in_the_card_works(tmp_path, model, monkeypatch, capsys):
    model.save_pretrained(tmp_path / "my_model")
    card = (tmp_path / "my_model" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == [
        "segmentation (32, 48)",
        "depth (1, 32, 48)",
        "normals (3, 32, 48)",
    ]


def test_the_card_says_how_the_model_was_made_and_how_good_it_is(tmp_path, model, run):
    model.save_pretrained(tmp_path / "hub", model_card_kwargs={"run": run})
    card = (tmp_path / "hub" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "symerge_dense" and header["pipeline_tag"] == "image-segmentation"
    assert header["license"] == "other" and {"symerge", "depth", "resnet10t"} <= set(header["tags"])
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    assert ["experts", "44.98", "0.5771", "–"] in rows and ["**SyMerge**", "43.2", "–", "-2.18"] in rows
    assert "expert depth: `depth.safetensors`, sha256 `" in card and "licence cc-by-nc-4.0" in card
    assert "expert normals: trained by the run, licence not stated" in card
    assert '"rounds": 300' in card and "seed: `7`" in card and "mIoU (segmentation), abs (depth)" in card
    assert "![" in card and (tmp_path / "hub" / "panels.png").read_bytes() == b"a picture"
    assert "/home/me" not in card and '"checkpoint": "resnet.pth"' in card  # nobody's folders are published


def test_without_labels_or_without_a_run_the_card_says_what_is_known(model):
    rows = {"merged": {"tasks": {"depth": {"abs": {"value": 0.25}}}}}
    agreeing = copy.deepcopy(model)
    agreeing.record = {**model.record, "agreement": {"held_out_images": 20, "rows": rows}}
    card = str(agreeing.generate_model_card())
    assert "on 20 held-out images: each task's expert is the truth" in card and "| **SyMerge** | 0.25 |" in card
    scored = copy.deepcopy(model)
    scored.record = {**model.record, "results": rows["merged"]}
    assert "As the model's file says." in str(scored.generate_model_card()) and "Δm" not in str(
        model.generate_model_card()
    )


def test_a_stated_licence_stands_in_the_header_and_an_edited_card_is_kept(tmp_path, model):
    model.save_pretrained(tmp_path / "hub", model_card_kwargs={"license": "apache-2.0", "name": "me/rooms"})
    card = tmp_path / "hub" / "README.md"
    text = card.read_text()
    assert yaml.safe_load(text.split("---")[1])["license"] == "apache-2.0" and "# me/rooms" in text
    card.write_text("mine")
    model.save_pretrained(tmp_path / "hub")
    assert card.read_text() == "mine"


def test_what_is_pushed_is_what_is_saved(model, run, monkeypatch):
    """The Hub cannot be reached from a test: its client is replaced, all that comes before it is real."""
    seen = {}

    class Client:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, **options):
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, folder_path, **options):
            seen.update(options, card=(folder_path / "README.md").read_text())
            seen["files"] = sorted(path.name for path in folder_path.iterdir())
            return "https://the.hub/commit"

    monkeypatch.setattr(hub_mixin, "HfApi", Client)
    address = model.push_to_hub("me/rooms", model_card_kwargs={"run": run}, branch="new")
    assert address == "https://the.hub/commit" and seen["repo_id"] == "me/rooms" and seen["revision"] == "new"
    assert seen["files"] == ["README.md", "config.json", "model.safetensors", "panels.png"]
    assert 'from_pretrained("me/rooms")' in seen["card"] and "| **SyMerge** | 43.2 |" in seen["card"]


def test_what_is_not_there_is_said_at_once(tmp_path, model):
    with pytest.raises(ValueError, match="there is no folder nothing; give one that save_pretrained wrote"):
        MultiTaskModel.from_pretrained("nothing")
    with pytest.raises(ValueError, match=r"the Hub gives no model\.safetensors of that name"):
        MultiTaskModel.from_pretrained("me/nothing", local_files_only=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"there is no file .*model\.safetensors"):
        MultiTaskModel.from_pretrained(tmp_path / "empty")
    for content in (None, "{", '{"config": 1}'):
        (tmp_path / "run").mkdir(exist_ok=True)
        if content is not None:
            (tmp_path / "run" / "results.json").write_text(content)
        with pytest.raises(ValueError, match="give the folder of a finished run"):
            model.save_pretrained(tmp_path / "hub", model_card_kwargs={"run": tmp_path / "run"})
    assert not (tmp_path / "hub").exists()
