"""``symerge`` from Python: whatever experts, base and images are given as, the model is that of the command line."""

import numpy as np
import pytest
import torch
from builders import tiny
from builders.photos import write_photos
from safetensors.torch import save_file
from torch.utils.data import Dataset

from symerge_dense import load_model, save_model, symerge
from symerge_dense.datasets.image_files import read_image
from symerge_dense.models.checkpoint import read_metadata, state_hash
from symerge_dense.report.agreement import read_record

OPTIONS = {"rounds": 2, "batch_size": 3, "recalibration_images": 6, "augment": None}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(folder with base, experts and photos; base; {task: expert}; the model that comes of the files)."""
    folder = tmp_path_factory.mktemp("lab")
    base, experts, _ = tiny.family()
    experts = {task: experts[task] for task in ("depth", "segmentation")}
    save_file({f"backbone.{name}": value for name, value in base.state_dict().items()}, folder / "base.safetensors")
    for task, expert in experts.items():
        save_model(folder / f"{task}.safetensors", expert, {"base_hash": state_hash(base.state_dict())})
    write_photos(folder / "photos", 6, size=tiny.SIZE, suffix=".png")
    model = symerge(
        folder / "base.safetensors",
        {task: folder / f"{task}.safetensors" for task in experts},
        folder / "photos",
        work_dir=folder / "run",
        **OPTIONS,
    )
    return folder, base, experts, model


def arrays(folder):
    return np.stack([read_image(path) for path in sorted((folder / "photos").iterdir())])


class Pairs(Dataset):
    """Images with a label, as classification data sets give them."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return torch.from_numpy(self.images[index]).permute(2, 0, 1), 3


class Dicts(Pairs):
    def __getitem__(self, index):
        return {"image": self.images[index], "name": str(index)}


def same(model, other):
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


GIVEN = {
    "a list of files": lambda folder: sorted((folder / "photos").iterdir()),
    "a tensor": lambda folder: torch.from_numpy(arrays(folder)).permute(0, 3, 1, 2).float(),
    "a list of arrays": lambda folder: list(arrays(folder)),
    "a data set of pairs": lambda folder: Pairs(arrays(folder)),
    "a data set of dicts": lambda folder: Dicts(arrays(folder)),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_images_may_be_given_in_any_way(kind, lab):
    folder, _, experts, model = lab
    files = {task: folder / f"{task}.safetensors" for task in experts}
    assert same(symerge(folder / "base.safetensors", files, GIVEN[kind](folder), **OPTIONS), model)


def test_experts_and_base_may_be_objects(lab):
    folder, base, experts, model = lab
    before = {task: state_hash(expert.state_dict()) for task, expert in experts.items()}
    assert same(symerge(base, experts, folder / "photos", **OPTIONS), model)
    assert same(symerge(base.state_dict(), experts, folder / "photos", device="cpu", **OPTIONS), model)
    assert {task: state_hash(expert.state_dict()) for task, expert in experts.items()} == before


def test_experts_without_a_common_base_are_merged_about_their_mean(lab):
    folder, _, experts, _ = lab
    model = symerge({"mean": True}, experts, folder / "photos", **{**OPTIONS, "learn_coefficients": False})
    name = "body.layer2.0.conv1.weight"
    parts = [expert.backbone.state_dict()[name] for expert in experts.values()]
    torch.testing.assert_close(model.backbone.state_dict()[name], sum(parts) / 2)


def test_a_data_set_of_this_package_gives_images_alone(lab):
    _, base, experts, _ = lab
    data = tiny.TinySet(tiny.tasks(), count=6)
    tiny.TinySet.targets_read.clear()
    symerge(base, experts, data, **OPTIONS)
    assert tiny.TinySet.targets_read == []


def test_the_model_knows_its_agreement_and_is_saved_with_it(lab, tmp_path):
    folder, _, _, model = lab
    assert list(model.tasks) == ["depth", "segmentation"] and not model.training
    assert model.record["agreement"] == read_record(folder / "run" / "results.json")["agreement"]
    assert model.record["image_size"] == list(tiny.SIZE) and model.record["training"]["rounds"] == 2
    save_model(tmp_path / "mine.safetensors", model)
    again, about = load_model(tmp_path / "mine.safetensors")
    assert same(again, model) and about["image_size"] == list(tiny.SIZE)
    assert about["agreement"]["held_out_images"] == 2


def test_a_seed_decides(lab):
    folder, base, experts, model = lab
    assert not same(symerge(base, experts, folder / "photos", seed=1, **OPTIONS), model)


def test_a_size_is_what_the_model_saw(lab):
    folder, base, experts, _ = lab
    small = symerge(base, experts, list(arrays(folder)), size=(16, 24), **OPTIONS)
    assert small.record["image_size"] == [16, 24]


def test_a_run_without_folder_leaves_nothing(lab, tmp_path, monkeypatch):
    folder, base, experts, _ = lab
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    symerge(base, experts, folder / "photos", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "no base": (lambda base, experts, photos: (None, experts, photos), "fine-tuned from: give base"),
    "no experts": (lambda base, experts, photos: (base, {}, photos), "give {task: file or model}"),
    "another task": (
        lambda base, experts, photos: (base, {"depth": experts["segmentation"]}, photos),
        "serves segmentation, not 'depth'",
    ),
    "a number for an expert": (lambda base, experts, photos: (base, {"depth": 3}, photos), "expert depth is a int"),
    "a number for a base": (lambda base, experts, photos: (3, experts, photos), "base is a int"),
    "fractions": (
        lambda base, experts, photos: (base, experts, np.full((9, 8, 8, 3), 0.5)),
        "multiply fractions by 255",
    ),
    "grey arrays": (lambda base, experts, photos: (base, experts, np.zeros((9, 8, 8), np.uint8)), "give RGB in 0..255"),
    "16 bits": (lambda base, experts, photos: (base, experts, np.zeros((9, 8, 8, 3), np.uint16)), "8 bits a channel"),
    "no images": (lambda base, experts, photos: (base, experts, []), "there are no images"),
    "a number": (lambda base, experts, photos: (base, experts, 7), "images are a int"),
    "two sizes": (
        lambda base, experts, photos: (base, experts, [np.zeros((8 + n % 2, 8, 3), np.uint8) for n in range(9)]),
        "image 0 is 8 x 8 pixels",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_merged_is_refused(kind, lab, capsys):
    folder, base, experts, _ = lab
    change, wanted = REFUSED[kind]
    with pytest.raises(ValueError) as found:
        symerge(*change(base, experts, folder / "photos"), **OPTIONS)
    assert wanted in str(found.value) and "labels of expert" not in capsys.readouterr().out


def test_wrong_options_and_devices_name_the_right_ones(lab):
    folder, base, experts, _ = lab
    with pytest.raises(ValueError, match="Did you mean 'batch_size'"):
        symerge(base, experts, folder / "photos", batchsize=3)
    with pytest.raises(ValueError, match=r"device='tpu'.*'cpu'"):
        symerge(base, experts, folder / "photos", device="tpu")


def test_files_of_other_experts_are_refused_here_too(lab, tmp_path):
    folder, base, experts, _ = lab
    save_model(tmp_path / "depth.safetensors", experts["depth"], {"base_hash": "a" * 64})
    with pytest.raises(ValueError, match="do not share their base weights"):
        symerge(base, {**experts, "depth": tmp_path / "depth.safetensors"}, folder / "photos", **OPTIONS)
    assert read_metadata(folder / "run" / "merged.safetensors")["image_size"] == list(tiny.SIZE)
