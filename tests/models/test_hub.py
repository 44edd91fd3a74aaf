"""Hub folders without a network: what is written is read again, and the card says what the run's record says."""

import json
import re

import pytest
import torch
import yaml
from builders.tiny import family
from huggingface_hub import ModelHubMixin
from safetensors import safe_open

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


def test_a_stated_licence_stands_in_the_header_and_an_edited_card_is_kept(tmp_path, model):
    model.save_pretrained(tmp_path / "hub", model_card_kwargs={"license": "apache-2.0", "name": "me/rooms"})
    card = tmp_path / "hub" / "README.md"
    text = card.read_text()
    assert yaml.safe_load(text.split("---")[1])["license"] == "apache-2.0" and "# me/rooms" in text
    card.write_text("mine")
    model.save_pretrained(tmp_path / "hub")
    assert card.read_text() == "mine"


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
