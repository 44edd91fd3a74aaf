"""``data.unlabelled`` as a list: from the config to the pool, and what is wrong with one pool of several."""

import re

import pytest
import torch
from builders.photos import write_photos
from builders.pipeline_tiny import tool, write_config

from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.pipeline import data
from symerge_dense.pipeline.config import load_config
from symerge_dense.pipeline.data_check import check
from symerge_dense.pipeline.profiling.estimate import image_size
from symerge_dense.registry import DATASETS

POOLS = """
data["unlabelled"] = [
    data["unlabelled"],
    dict(type="ImageFolder", root=PHOTOS, size=(32, 48), limit=3, labels_of=["depth", "normals"]),
]
"""


@pytest.fixture
def photos(tmp_path):
    """A folder of photos, and a config with it beside the rooms."""
    write_photos(tmp_path / "photos", 4)
    return write_config(tmp_path, more=POOLS.replace("PHOTOS", repr(str(tmp_path / "photos"))))


def test_the_pool_of_a_config_is_the_one_of_its_spec(photos):
    """The spec is what an adaptation is run from, and what ``adaptation.py`` keeps: plain values, by names."""
    config = load_config(photos)
    pool, spec = data.pool(config), data.pool_spec(config, 3)
    rebuilt = DATASETS.build(spec)
    assert spec["type"] == "Unlabelled" and [one["type"] for one in spec["dataset"]] == ["Rooms", "ImageFolder"]
    assert isinstance(rebuilt, Unlabelled) and len(pool) == 9 and len(rebuilt) == 6
    assert rebuilt.fingerprint == pool.split(3)[0].fingerprint
    assert pool.labelled_by("segmentation").tolist() == [True] * 6 + [False] * 3
    assert torch.equal(pool.image(6), data.unread_dataset(config, "unlabelled[1]", {})[0]["image"])
    assert config.record["data"]["unlabelled"][1]["limit"] == 3
    assert image_size(config) == (32, 48)


def test_a_limit_is_one_word_of_a_command_line(photos):
    for limit in (1, 2):
        config = load_config(photos, [f"data.unlabelled.1.limit={limit}"])
        assert len(data.pool(config)) == 6 + limit


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ("labels_of=['dept']", r"data\.unlabelled: pool \[1\]: labels_of: unknown task 'dept'. Did you mean 'depth'"),
        ("limt=3", r"data\.unlabelled\[1\]: unknown key 'limt'. Did you mean 'limit'"),
        ("type='Rooom'", r"data\.unlabelled\[1\].*Did you mean 'Rooms'"),
    ],
)
def test_what_is_wrong_in_the_config_is_told_with_the_pools_number(photos, changes, told):
    photos.write_text(photos.read_text() + f"\ndata['unlabelled'][1].update({changes})\n")
    with pytest.raises(ValueError, match=told):
        load_config(photos)


def test_an_empty_list_and_tasks_without_a_pool(photos):
    text = photos.read_text()
    photos.write_text(text + "\ndata['unlabelled'] = []\n")
    with pytest.raises(ValueError, match=r"data\.unlabelled is an empty list; name one data set"):
        load_config(photos)
    photos.write_text(text + "\ndata['unlabelled'] = data['unlabelled'][1:]\n")
    with pytest.raises(ValueError, match="no pool has labels of segmentation: name the task in labels_of"):
        load_config(photos)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: [path.unlink() for path in folder.iterdir()], r"pool \[1\] \(ImageFolder\): .*no image"),
        (
            lambda folder: (folder / "0000.jpg").write_bytes(b"no"),
            r"pool \[1\] \(ImageFolder\): .*0000\.jpg: not a rea",
        ),
        (lambda folder: (folder / "0002.jpg").write_bytes(b"no"), r"pool \[1\] \(ImageFolder\): 1 of 3 .*0002\.jpg"),
        (lambda folder: None, r"differ in size.*\[0\] \(Rooms\): 32 x 48, pool \[1\] \(ImageFolder\): 48 x 64.*size="),
    ],
    ids=["empty", "first", "third", "size"],
)
def test_a_pool_that_does_not_fit_stops_a_run_before_anything_is_trained(photos, capsys, spoil, told):
    folder = photos.parent / "photos"
    if spoil(folder) is None:
        photos.write_text(photos.read_text() + "\ndata['unlabelled'][1].pop('size')\n")
    assert tool("train.py", photos, "--work-dir", photos.parent / "run") == 2
    printed = capsys.readouterr()
    text = " ".join((printed.err + printed.out).split())
    assert re.search(rf"data\.unlabelled: .*{told}", text) and "Traceback" not in text
    assert not list(photos.parent.glob("experts/*"))


def test_symerge_check_lists_every_pool(photos):
    report = check(load_config(photos), "unlabelled")
    assert [fact.split(",")[0] for fact in report.facts] == ["unlabelled[0]: 6 images", "unlabelled[1]: 3 images"]
    assert not report.faults
    photos.write_text(photos.read_text() + "\ndata['unlabelled'][1].pop('size')\n")
    (fault,) = check(load_config(photos), "unlabelled").faults
    assert "unlabelled[0] 32 x 48, unlabelled[1] 48 x 64" in str(fault) and "size=(height, width)" in str(fault)
