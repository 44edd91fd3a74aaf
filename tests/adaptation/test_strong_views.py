"""Strong views: labels move exactly with the image, by their tasks' rules, and everything follows from the key."""

import numpy as np
import pytest
import torch
from builders import tiny
from builders.adapt_once import adapt_tiny
from torch.utils.data import DataLoader, default_collate

from symerge_dense.adaptation.expert_labels import CachedLabels
from symerge_dense.adaptation.history import read_history
from symerge_dense.adaptation.label_cache import write_labels
from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.strong_views import StrongViews
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.pipeline.config_checks import check_adaptation
from symerge_dense.registry import TASKS
from symerge_dense.tasks.base import DenseTask

FRAME, HEAD = (48, 64), (12, 16)


class Plain(TASKS["depth"]):
    """A task that says nothing of movements, as one's own does."""

    moves = DenseTask.moves


def ramp(size):
    """Column and row of each pixel's centre as fractions of the frame, and ones, float32 (h,w,3)."""
    rows, columns = np.meshgrid(*((np.arange(side) + 0.5) / side for side in size), indexing="ij")
    return np.stack([columns, rows, np.ones(size)], axis=-1).astype(np.float32)


def labels():
    """Places as labels: nearest in segmentation, mixed in albedo, and a constant depth of 2 m."""
    return {"segmentation": ramp(HEAD), "albedo": ramp(HEAD), "depth": ramp(HEAD)[..., 2:] * 2}


STRONG = [
    {"type": "ColorJitter", "p": 0.8},
    {"type": "RandomResizedCrop", "scale": (0.4, 1.0), "p": 0.5},
    {"type": "Rotate", "limit": 10, "p": 0.5},
]
RULES = {name: TASKS[name]() for name in ("segmentation", "albedo", "depth")}


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "HorizontalFlip", "p": 1},
        {"type": "RandomResizedCrop", "scale": (0.25, 0.5)},
        {"type": "Rotate", "limit": 40, "p": 1},
        {"type": "Affine", "scale": (0.7, 1.4), "translate_percent": 0.1, "p": 1},
        {"type": "Affine", "scale": (0.7, 1.4), "rotate": (-30, 30), "keep_ratio": True, "p": 1},
    ],
    ids=["mirror", "crop", "rotation", "stretch", "similarity"],
)
def test_labels_show_what_the_image_shows(spec):
    """An image of places, and labels of places at a quarter of its size: they stay the same at every spot."""
    views, seen = StrongViews([spec], FRAME), []
    views.check(RULES)
    for draw in range(6):
        made, valid = views({"image": ramp(FRAME) * 200, **labels()}, RULES, (3, draw, 0))
        image = made["image"].reshape(12, 4, 16, 4, 3).mean((1, 3)) / 200  # of each label's pixels
        for name, wanted in (("albedo", 0.02), ("segmentation", 0.5 / 12 + 0.02)):
            inside = valid[name].copy()
            inside[[0, -1]] = inside[:, [0, -1]] = False  # borders are clamped
            assert inside.sum() > 20 and np.abs(made[name] - image)[inside][:, :2].max() < wanted, name
            assert (image[inside][:, 2] > 0.98).all()  # nothing from outside the frame counts as inside
        seen.append(made["albedo"])
    assert spec["type"] == "HorizontalFlip" or not np.array_equal(seen[0], seen[1])


def test_depth_is_divided_by_the_zoom_and_normals_turn_with_the_picture():
    rules = {"depth": TASKS["depth"](), "normals": TASKS["normals"]()}
    sideways = np.zeros((*HEAD, 3), np.float32)
    sideways[..., 0] = 1  # to the right
    crop = [{"type": "Crop", "x_min": 16, "y_min": 12, "x_max": 48, "y_max": 36, "p": 1}, {"type": "Resize", "p": 1}]
    arrays = {"image": ramp(FRAME) * 200, "depth": labels()["depth"], "normals": sideways}
    near, _ = StrongViews(crop, FRAME)(arrays, rules, (0, 0, 0))
    assert near["depth"] == pytest.approx(1.0, abs=0.02) and near["normals"] == pytest.approx(sideways, abs=1e-3)
    turn = [{"type": "Rotate", "limit": (90, 90), "p": 1}]  # counter-clockwise: what was right is up
    square = {"image": ramp((48, 48)) * 200, "normals": sideways[:, :12]}
    turned, _ = StrongViews(turn, (48, 48))(square, rules, (0, 0, 0))
    assert turned["image"][24, 2:-2, 1].std() > 40  # rows run along columns now
    assert turned["image"][2, 24, 0] > turned["image"][-3, 24, 0]  # the right end is on top
    assert turned["normals"][6, 6] == pytest.approx([0, 0, 1], abs=1e-2)  # up
    flipped, _ = StrongViews([{"type": "HorizontalFlip", "p": 1}], FRAME)(arrays, rules, (0, 0, 0))
    assert flipped["normals"][6, 6] == pytest.approx([-1, 0, 0]) and flipped["depth"] == pytest.approx(2)
    both, _ = StrongViews([*turn, {"type": "HorizontalFlip", "p": 1}], (48, 48))(square, rules, (0, 0, 0))
    assert both["normals"][6, 6] == pytest.approx([0, 0, 1], abs=1e-2)  # turned, then mirrored
    other, _ = StrongViews([{"type": "HorizontalFlip", "p": 1}, *turn], (48, 48))(square, rules, (0, 0, 0))
    assert other["normals"][6, 6] == pytest.approx([0, 0, -1], abs=1e-2)  # mirrored, then turned


def test_colours_leave_labels_alone_and_blank_patches_too():
    specs = [{"type": "ColorJitter", "p": 1}, {"type": "GaussianBlur", "p": 1}]
    given = {"image": ramp(FRAME) * 200, **labels()}
    made, valid = StrongViews(specs, FRAME)(given, RULES, (0, 0, 0))
    assert valid == {} and all(made[name] is given[name] for name in RULES)
    assert not np.array_equal(made["image"], given["image"]) and made["image"].dtype == np.float32
    made, valid = StrongViews([{"type": "CoarseDropout", "p": 1}], FRAME)(given, RULES, (0, 0, 0))
    assert (made["image"] == 0).all(-1).any() and all(pixels.all() for pixels in valid.values())
    assert all(np.array_equal(made[name], given[name]) for name in RULES)


def test_transforms_are_drawn_independently_of_each_other():
    """albumentations seeds every transform alike; from one seed, two of p=0.5 would always act together."""
    views = StrongViews([{"type": "InvertImg", "p": 0.5}, {"type": "HorizontalFlip", "p": 0.5}], FRAME)
    image, acted = ramp(FRAME) * 200, set()
    for draw in range(40):
        made, _ = views({"image": image}, {}, (0, draw, 0))
        inverted, left = made["image"][24, 32, 2] < 128, made["image"][24, 2, 0]
        acted.add((bool(inverted), bool((left < 100) != inverted)))
    assert len(acted) == 4


def test_teachers_see_the_image_moved_and_not_changed(tmp_path):
    specs = [{"type": "InvertImg", "p": 1}, {"type": "HorizontalFlip", "p": 1}]
    given = ramp(FRAME) * 200
    made, valid = StrongViews(specs, FRAME)({"image": given, "clean": given, **labels()}, RULES, (0, 0, 0))
    assert np.abs(made["clean"] - given[:, ::-1]).max() < 1e-2 and "clean" not in valid
    assert np.abs(made["image"] - (255 - given[:, ::-1])).max() < 1
    model, _ = adapt_tiny(
        tmp_path, strong=STRONG, cutmix=1.0, teacher="ema", views={"flip": True}, uncertainty="weight", rounds=2
    )
    assert bool(model.merge.coefficients.isfinite().all())


# -- errors, before anything is trained --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("specs", "told"),
    [
        ([{"type": "ColourJitter"}], "unknown transform of albumentations 'ColourJitter'. Did you mean 'ColorJitter'"),
        ([{"type": "ColorJitter", "brightnes": 0.4}], "ColorJitter: .*'brightnes' are not valid"),
        ([{"type": "GaussianBlur", "p": 3}], "GaussianBlur: .*less than or equal to 1"),
        ([{"type": "OneOf", "transforms": [{"type": "Blr"}]}], "unknown transform of albumentations 'Blr'"),
        (["ColorJitter"], "give dicts whose type is the name of a class"),
        ([], "give a list of transforms"),
    ],
)
def test_what_albumentations_does_not_know_is_refused_with_the_config(specs, told):
    with pytest.raises(ValueError, match=rf"^adaptation: .*{told}"):
        check_adaptation({"strong": specs}, {"depth": {"type": "depth"}})


@pytest.mark.parametrize(
    ("spec", "task", "told"),
    [
        ({"type": "Rotate", "p": 0.01}, "plain", "Rotate moves pixels by rotation, and task plain has no rule"),
        ({"type": "Perspective"}, "depth", "Perspective moves pixels by .*warp, and task depth"),
        ({"type": "ElasticTransform", "alpha": 300}, "normals", "ElasticTransform moves pixels by warp"),
        ({"type": "RandomResizedCrop", "ratio": (0.5, 2)}, "normals", "by .*stretch, and task normals.*has for mirror"),
        ({"type": "VerticalFlip"}, "plain", "by rotation, and task plain"),
        ({"type": "RandomCrop", "height": 24, "width": 24, "p": 1}, "depth", r"\(24, 24, 3\).*must keep size and type"),
        ({"type": "Normalize", "p": 1}, "depth", "makes float32 .*must keep size and type"),
        ({"type": "Mosaic", "p": 1}, "depth", "cannot be applied to an image"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_what_a_task_has_no_rule_for_is_refused(spec, task, told):
    rule = Plain() if task == "plain" else TASKS[task]()
    with pytest.raises(ValueError, match=told):
        StrongViews([spec], FRAME).check({task: rule})


def test_a_teacher_that_knows_one_camera_takes_mirrors_alone(tmp_path):
    teacher = {"type": "cross_task", "fov": 60}
    tasks = tiny.tasks()
    make_options(teacher=teacher, strong=[{"type": "ColorJitter"}, {"type": "HorizontalFlip"}]).check_tasks(tasks)
    with pytest.raises(ValueError, match="teacher: strong: RandomResizedCrop moves pixels by zoom, and task normals"):
        make_options(teacher=teacher, strong=[{"type": "RandomResizedCrop"}]).check_tasks(tasks)
    partly = Unlabelled([tiny.TinySet({}), {"type": tiny.TinySet, "split": "other", "labels_of": ["depth"]}])
    with pytest.raises(ValueError, match="images of a pool have none of segmentation, normals; leave labels_of out"):
        adapt_tiny(tmp_path, data=partly, teacher=teacher)
    assert not list(tmp_path.rglob("*.npy"))


def test_a_class_map_may_be_warped():
    StrongViews([{"type": "Perspective", "p": 1}, {"type": "ElasticTransform", "p": 1}], FRAME).check(
        {"segmentation": TASKS["segmentation"](), "edges": TASKS["edges"](), "albedo": TASKS["albedo"]()}
    )


def test_a_run_is_refused_before_any_label_is_written(tmp_path):
    with pytest.raises(ValueError, match="Perspective moves pixels by"):
        adapt_tiny(tmp_path, strong=[{"type": "Perspective"}])
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"strong": [{"type": "ColorJitter"}], "labels": "online", "augment": None}, "labels of the clean view"),
        ({"cutmix": 0.5, "labels": "online", "augment": None}, "labels of the clean view"),
        ({"cutmix": 1.5}, r"must lie in \[0, 1\]"),
        ({"cutmix": 0.5, "batch_size": 1, "statistics": "running"}, "batch_size=2 or more"),
    ],
)
def test_options_that_exclude_each_other(options, told):
    with pytest.raises(ValueError, match=told):
        make_options(**options)


# -- samples and runs --------------------------------------------------------------------------------------------------


def test_samples_follow_from_seed_draw_and_index_whoever_loads_them(tmp_path):
    _, experts, _ = tiny.family()
    pool = Unlabelled(tiny.TinySet({}, split="pool"), limit=4)
    write_labels(experts, pool, tmp_path, 4)
    pool.attach(CachedLabels(tmp_path, tiny.tasks(), None, 5, None, strong=StrongViews(STRONG, tiny.SIZE)))
    keys = [0, 5, 2, 11, 7]
    alone = [pool[key] for key in keys]
    assert not torch.equal(pool[1]["image"], pool[5]["image"])  # one image in two draws
    loader = DataLoader(pool, 1, sampler=keys[::-1], num_workers=2, collate_fn=default_collate)
    for sample, batch in zip(alone[::-1], loader, strict=True):
        for name, value in sample.items():
            assert torch.equal(torch.as_tensor(value), batch[name][0]), name
    assert alone[0]["valid_depth"].dtype == torch.bool and alone[0]["valid_depth"].shape == (8, 12)


def test_it_learns_from_strong_views_and_resumes_bit_for_bit(tmp_path):
    options = {"strong": STRONG, "cutmix": 0.7, "rounds": 4, "save_every": 2}
    unbroken, _ = adapt_tiny(tmp_path / "unbroken", **options)
    broken = tmp_path / "broken"
    adapt_tiny(broken, **options)
    (broken / "checkpoints" / "iter_4.pth").unlink()
    (broken / "checkpoints" / "last_checkpoint").unlink(missing_ok=True)
    resumed, _ = adapt_tiny(broken, resume=True, **options)
    assert torch.equal(unbroken.merge.coefficients, resumed.merge.coefficients)
    rows = read_history(tmp_path / "unbroken" / "history.jsonl")
    assert rows == read_history(broken / "history.jsonl") and len(rows) == 4
    plain, _ = adapt_tiny(tmp_path / "plain", rounds=4, save_every=2)
    assert not torch.equal(plain.merge.coefficients, unbroken.merge.coefficients)
