"""Every shipped config: it reads, builds the whole network that it describes, and its data give what its tasks need."""

import ast
import dataclasses
import json

import pytest
import torch
from builders.pipeline_tiny import ROOT, write_cityscapes, write_nyuv2

from symerge_dense.adaptation.options import SyMergeOptions
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.datasets.cityscapes import Cityscapes
from symerge_dense.datasets.nyuv2.camera import RGB_CAMERA
from symerge_dense.datasets.nyuv2.mtan import NYUv2
from symerge_dense.datasets.rooms.dataset import Rooms
from symerge_dense.models.backbone import TimmBackbone
from symerge_dense.models.heads.mmseg import MMSegHead
from symerge_dense.models.multi_task import MultiTaskModel
from symerge_dense.pipeline import data as sources
from symerge_dense.pipeline.config import config_hash, load_config
from symerge_dense.pipeline.network import check_network, network
from symerge_dense.registry import STUDIES

CONFIGS = ROOT / "configs"
FOUND = {
    ".": 13,
    "_base_": 9,
    "experts": 9,
    "merge": 2,
    "ablation": 4,
    "studies": len(STUDIES),  # one for each
}  # files in each folder: count a new one
TOP = sorted(path.name for path in CONFIGS.glob("*.py"))
ABLATIONS = sorted((CONFIGS / "ablation").glob("*.py"))
LEVERS = [path for path in ABLATIONS if path.stem.endswith("_levers")]
# of every row alike, or of no result
FREE = {
    "save_every",
    "num_workers",
    "task_vectors",
    "activation_checkpointing",
    "compile",
    "amp",
    "batchnorm",
    "recalibration_images",
}
SPLITS = ("train", "unlabelled", "test")


def bases(path):
    """Files that a config inherits from: imports inside ``with read_base():``."""
    blocks = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.With)]
    reads = [block for block in blocks if ast.unparse(block.items[0]) == "read_base()"]
    imports = [line for block in reads for line in block.body if isinstance(line, ast.ImportFrom)]
    return [path.parents[line.level - 1].joinpath(*line.module.split(".")).with_suffix(".py") for line in imports]


def depth(path):
    """Levels of inheritance below a config; 0 for one that stands alone."""
    return max((1 + depth(base) for base in bases(path)), default=0)


def ancestors(path):
    return {path}.union(*(ancestors(base) for base in bases(path)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """{data set class: overrides per split} that point a config at a few frames."""
    folder = tmp_path_factory.mktemp("data")
    write_nyuv2(folder / "nyuv2", {"train": 2, "val": 2}, frame=(288, 384))
    write_cityscapes(folder / "cityscapes", count=2, frame=(128, 256))
    return {
        Rooms: {"root": str(folder / "rooms"), "count": 2},
        NYUv2: {"root": str(folder / "nyuv2")},
        Cityscapes: {"root": str(folder / "cityscapes")},
    }


@pytest.fixture(scope="module")
def networks():
    """Networks by what describes them: configs that differ in the adaptation share one."""
    built = {}

    def build(config):
        key = config_hash(config.backbone, config.head, config.heads, config.tasks, config.preprocessing)
        if key not in built:
            with torch.device("meta"):
                backbone = TimmBackbone(**config.backbone)
            built[key] = network(config, backbone, config.tasks)
        return built[key]

    return build


def read(name, data):
    """The config, its data sets pointed at ``data``."""
    kinds = {split: spec["type"] for split, spec in load_config(CONFIGS / name).data.items()}
    wanted = [f"data.{split}.{key}={value!r}" for split, kind in kinds.items() for key, value in data[kind].items()]
    return load_config(CONFIGS / name, wanted)


def test_every_file_is_known():
    files = [path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.py")]
    assert {folder: sum(str(file.parent) == folder for file in files) for folder in FOUND} == FOUND
    assert len(files) == sum(FOUND.values()) and len(TOP) == FOUND["."]


def test_every_part_serves_a_config():
    studies = (CONFIGS / "studies").glob("*.py")
    reached = set().union(*(ancestors(path) for path in [*(CONFIGS / name for name in TOP), *ABLATIONS, *studies]))
    assert reached == set(CONFIGS.rglob("*.py"))


@pytest.mark.parametrize("name", TOP)
def test_inheritance_is_two_levels_deep_at_most(name):
    assert 1 <= depth(CONFIGS / name) <= 2


@pytest.mark.parametrize("name", TOP)
def test_the_docstring_opens_with_the_command(name):
    text = ast.get_docstring(ast.parse((CONFIGS / name).read_text()))
    first = [line.strip() for line in text.splitlines() if line.strip()][:3]
    assert f"python tools/train.py configs/{name}" in first and "TODO" not in text


def test_an_mmsegmentation_head_is_among_them():
    heads = {
        name: [config.head_of(task)["type"] for task in config.tasks]
        for name in TOP
        for config in [load_config(CONFIGS / name)]
    }
    assert any(MMSegHead in types for types in heads.values())


@pytest.mark.parametrize("name", TOP)
def test_the_whole_network_builds_and_has_the_adapted_layers(name, networks):
    config = load_config(CONFIGS / name)
    model, options = networks(config), config.options
    assert list(model.tasks) == list(model.heads) == list(config.tasks) and len(model.tasks) >= 2
    spec = json.loads(json.dumps(model.spec))
    assert spec == model.spec and list(spec["tasks"]) == list(config.tasks)
    for task, head in model.heads.items():
        layers = [head.get_submodule(module) for module in head.layer_modules(options.layer)]
        assert sum(parameter.numel() for layer in layers for parameter in layer.parameters()) > 0, task
    symerge = SyMergeModel(model.backbone, dict.fromkeys(config.tasks, model), options)
    assert symerge.merge.coefficients.shape[1] == len(config.tasks) and symerge.layer_parameters()


def test_the_check_before_a_run_builds_a_network_of_each_kind():
    for name in ("rooms_symerge.py", "rooms_vit_symerge.py"):
        check_network(load_config(CONFIGS / name))
    with pytest.raises(ValueError, match=r"adaptation.layer, task segmentation: unknown layer 'fnal'.*'final'"):
        check_network(load_config(CONFIGS / "rooms_symerge.py", ["adaptation.layer=fnal"]))


@pytest.mark.parametrize("name", TOP)
def test_a_model_file_describes_the_network_completely(name, networks):
    model = networks(load_config(CONFIGS / name))
    again = MultiTaskModel.from_spec(json.loads(json.dumps(model.spec)))
    shapes = [{key: value.shape for key, value in m.state_dict().items()} for m in (model, again)]
    assert shapes[0] == shapes[1] and again.spec == model.spec


@pytest.mark.parametrize("name", TOP)
def test_each_split_gives_what_the_network_and_the_tasks_take(name, data, networks):
    config = read(name, data)
    model = networks(config).to("meta").eval()
    for split in SPLITS:
        made = sources.dataset(config, split, config.tasks)
        sample = made[0]
        assert set(sample) == {"image", "index", *config.tasks} and len(made) == 2
        image = sample["image"]
        assert image.min() >= 0 and 100 < image.max() <= 255
        for task, output in model(image[None].to("meta"), mode="predict")[0].items():  # shapes only, on no device
            model.tasks[task].check(output[None], sample[task][None])
            assert model.tasks[task].valid(sample[task][None]).any(), task
    assert set(sources.pool(config)[0]) == {"image", "index"}


@pytest.mark.parametrize("name", TOP)
def test_the_training_images_have_targets_for_the_base(name, data):
    config = read(name, data)
    wanted = config.base.get("train", {}).get("tasks", {})
    assert wanted or config.base.get("pretrained")
    sample = sources.dataset(config, "train", wanted)[0]
    assert set(sample) == {"image", "index", *wanted} and set(wanted).isdisjoint(config.tasks)


@pytest.mark.parametrize("path", sorted((CONFIGS / "merge").glob("*.py")), ids=lambda path: path.stem)
def test_a_merge_part_holds_options_and_nothing_else(path):
    names = [ast.unparse(node.targets[0]) for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
    assert names == ["adaptation"] and not bases(path)


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_says_how_it_is_run_and_every_row_of_it_resolves(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert f"python tools/compare.py configs/ablation/{path.name} --seeds 3" in text
    config = load_config(path)
    rows = config.baselines["variants"]
    assert set(rows) <= set(config.baselines["methods"]) and "symerge" in config.baselines["methods"]
    for row in rows.values():
        changed = {key: value for key, value in row.items() if key not in ("method", "unlabelled")}
        assert dataclasses.replace(config.options, **changed)


@pytest.mark.parametrize("path", LEVERS, ids=lambda path: path.stem)
def test_levers_have_a_row_each_and_name_what_each_was(path):
    config = load_config(path)
    rows = config.baselines["variants"]
    assert sources.measured_sets(config)[1:] == (["pool"] if "rooms" in path.stem else ["outside"])
    if "rooms" not in path.stem:
        teacher = rows["cross-task teacher"]["teacher"]
        assert [teacher[key] for key in ("fx", "fy", "cx", "cy")] == pytest.approx(list(RGB_CAMERA))
    was = rows["as it was"]
    options = {field.name for field in dataclasses.fields(SyMergeOptions)}
    dependent = {"singular_rank", "averaging_start", "averaging_decay", "uncertain_share"}  # of an option that is off
    assert options - set(was) - {"method"} <= FREE | dependent, "name the option as it was in configs/_base_/levers.py"
    for name, row in rows.items():
        compared = vars(config.options) | {"method": "symerge"} if name.startswith("symerge, ") else was
        changed = {key for key in row if row[key] != compared.get(key)}
        assert name == "as it was" or changed, name
