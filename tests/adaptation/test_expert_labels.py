"""The experts' labels: what is stored, when it is asked again, and that image and label move together."""

from collections import Counter

import numpy as np
import pytest
import torch
from builders import tiny
from builders.adapt_once import adapt_tiny

from symerge_dense.adaptation.expert_labels import CachedLabels, OnlineLabels, labelled_images
from symerge_dense.adaptation.history import read_history
from symerge_dense.adaptation.label_cache import write_labels
from symerge_dense.adaptation.objective import PREFIX
from symerge_dense.datasets.base import DenseDataset
from symerge_dense.datasets.transforms import Augment
from symerge_dense.datasets.unlabelled import Unlabelled

TASKS = tiny.tasks()
HEAD = (tiny.SIZE[0] // 4, tiny.SIZE[1] // 4)


@pytest.fixture
def experts():
    return tiny.family()[1]


@pytest.fixture
def pool():
    """Six images of a set that could give targets, and would tell."""
    return Unlabelled(tiny.TinySet(TASKS, split="pool"), limit=6)


def labelled_pool(pool, folder, rules, augment=None, seed=0):
    """A view of ``pool`` with the cached labels in ``folder`` attached, as the hook makes it."""
    view = pool.fresh()
    view.attach(CachedLabels(folder, rules, augment, seed))
    return view


def counting(experts):
    """{task: calls so far}, counted from now on."""
    calls = Counter()
    for task, expert in experts.items():
        expert.register_forward_hook(lambda *_, task=task: calls.update([task]))
    return calls


@torch.no_grad()
def outputs(expert, task, pool, batch_size):
    """What the expert says about each image, in batches as labels are made: (images, C, h, w)."""
    images = torch.stack([pool[index]["image"] for index in range(len(pool))])
    return torch.cat([expert(part, mode="tensor")[task] for part in images.split(batch_size)])


# -- what is stored ----------------------------------------------------------------------------------------------------
def test_labels_are_the_raw_outputs_in_half_precision_one_row_per_image(tmp_path, experts, pool):
    write_labels(experts, pool, tmp_path / "labels", 4)
    labelled = labelled_pool(pool, tmp_path / "labels", TASKS)
    for task, rule in TASKS.items():
        stored = np.load(tmp_path / "labels" / f"{task}.npy", allow_pickle=False)
        expected = outputs(experts[task], task, pool, 4).half()
        assert stored.dtype == np.float16 and stored.shape == (6, rule.channels, *HEAD)
        assert torch.equal(torch.from_numpy(stored), expected)
        assert torch.equal(labelled[6 * 5 + 2][PREFIX + task], expected[2])  # image 2 in the sixth draw
    assert len(labelled) == 6


def test_the_view_gives_an_image_and_labels_but_never_a_target(tmp_path, experts):
    labelled = tiny.TinySet(TASKS, split="pool")
    pool = Unlabelled(labelled, limit=6)
    tiny.TinySet.targets_read.clear()
    assert set(pool[3]) == {"image", "index"}
    write_labels(experts, pool, tmp_path, 4)
    sample = labelled_pool(pool, tmp_path, TASKS, Augment(flip=0.5, zoom=(1.0, 1.5)), seed=1)[3]
    assert set(sample) == {"image", "index", *(PREFIX + task for task in TASKS)}
    assert not tiny.TinySet.targets_read
    assert set(labelled[0]) == {"image", "index", *TASKS}
    assert len(tiny.TinySet.targets_read) == len(TASKS)  # the set itself reads them, and that is noticed


def test_an_empty_pool_is_refused(tmp_path, experts):
    with pytest.raises(ValueError, match=r"pool is empty.*data\.unlabelled"):
        write_labels(experts, Unlabelled(tiny.TinySet({}, count=0)), tmp_path / "labels", 4)


# -- asked once, and again only where something changed ----------------------------------------------------------------
def test_what_has_not_changed_is_not_asked_again(tmp_path, experts, pool):
    calls = counting(experts)
    write_labels(experts, pool, tmp_path, 4)
    assert calls == dict.fromkeys(TASKS, 2)  # 4 images, then 2
    write_labels(experts, pool, tmp_path, 2)
    assert calls == dict.fromkeys(TASKS, 2)


def test_only_a_changed_expert_is_asked_again(tmp_path, experts, pool):
    write_labels(experts, pool, tmp_path, 4)
    with torch.no_grad():
        next(experts["depth"].parameters()).mul_(1.5)
    calls = counting(experts)
    write_labels(experts, pool, tmp_path, 4)
    assert calls == {"depth": 2}
    stored = torch.from_numpy(np.load(tmp_path / "depth.npy"))
    assert torch.equal(stored, outputs(experts["depth"], "depth", pool, 4).half())


@pytest.mark.parametrize(
    "other",
    [
        lambda: Unlabelled(tiny.TinySet({}, split="pool"), limit=5),
        lambda: Unlabelled(tiny.TinySet({}, split="other"), limit=6),
        lambda: Unlabelled(tiny.TinySet({}, split="pool", size=(16, 32)), limit=6),
    ],
    ids=["length", "images", "size"],
)
def test_a_changed_pool_is_asked_again(tmp_path, experts, pool, other):
    write_labels(experts, pool, tmp_path, 6)
    calls, changed = counting(experts), other()
    write_labels(experts, changed, tmp_path, 6)
    assert calls == dict.fromkeys(TASKS, 1)
    assert torch.equal(
        torch.from_numpy(np.load(tmp_path / "normals.npy")), outputs(experts["normals"], "normals", changed, 6).half()
    )


def test_labels_that_were_not_finished_are_asked_again(tmp_path, experts, pool):
    def stop(module, arguments, output):
        if len(arguments[0]) == 2:  # the second batch
            raise KeyboardInterrupt

    stopper = experts["segmentation"].register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        write_labels(experts, pool, tmp_path, 4)
    assert not (tmp_path / "segmentation.npy").exists()
    stopper.remove()
    write_labels(experts, pool, tmp_path, 4)
    ends = "npy", "npy.crc32", "json"
    assert {path.name for path in tmp_path.iterdir()} == {f"{task}.{end}" for task in TASKS for end in ends}


# -- geometry ----------------------------------------------------------------------------------------------------------
def test_a_mirrored_image_has_mirrored_labels_and_normals_lean_the_other_way(tmp_path, experts, pool):
    write_labels(experts, pool, tmp_path, 4)
    plain, mirrored = (labelled_pool(pool, tmp_path, TASKS, Augment(flip=flip)) for flip in (0.0, 1.0))
    for key in (0, 4, 6 + 1):
        before, after = plain[key], mirrored[key]
        assert torch.equal(after["image"], before["image"].flip(-1))
        assert torch.equal(before["image"], pool[key]["image"])
        for task in TASKS:
            expected = before[PREFIX + task].flip(-1)
            if task == "normals":
                expected = expected * torch.tensor([-1, 1, 1]).view(3, 1, 1)
            assert torch.equal(after[PREFIX + task].to(expected.dtype), expected), task


class Ramp(DenseDataset):
    """Each image says where its pixels lie: red is the column, green the row, as fractions of the frame times 200."""

    def __len__(self):
        return 5

    def image(self, index):
        rows, columns = ramp(tiny.SIZE)
        return np.stack([columns, rows, rows * 0], axis=-1).astype(np.float32) * 200

    def target(self, index, name):
        raise AssertionError("the pool is unlabelled")


def ramp(size):
    """Row and column of each pixel's centre as fractions, two arrays (h,w)."""
    return np.meshgrid(*((np.arange(side) + 0.5) / side for side in size), indexing="ij")


def test_a_zoomed_image_and_its_labels_show_the_same_window_and_depth_is_halved(tmp_path):
    pool = Unlabelled(Ramp())
    rows, columns = ramp(HEAD)
    np.save(tmp_path / "depth.npy", np.stack([1 + columns[None]] * 5).astype(np.float16))
    np.save(tmp_path / "segmentation.npy", np.stack([[rows, columns, rows, columns]] * 5).astype(np.float16))
    rules = {task: TASKS[task] for task in ("depth", "segmentation")}
    augment, seen = Augment(flip=0.0, zoom=(2.0,)), set()
    zoomed = labelled_pool(pool, tmp_path, rules, augment, seed=7)
    for key in (0, 3, 5 + 3):
        view = augment.draw(np.random.default_rng((7, *divmod(key, 5))))
        sample = zoomed[key]
        assert sample["index"] == key % 5
        image, depth, classes = (sample[name].float() for name in ("image", "label_depth", "label_segmentation"))
        for values, start, axis, off in (  # off by a quarter pixel at the frame's border; half a one where nearest
            (image[0] / 200, view.across, 1, 0.25),
            (image[1] / 200, view.down, 0, 0.25),
            (depth[0] * 2 - 1, view.across, 1, 0.5),
            (classes[0], view.down, 0, 0.5),
            (classes[1], view.across, 1, 0.5),
        ):
            expected = start / 2 + ramp(values.shape)[axis] / 2  # the window is half of the frame
            assert np.abs(values.numpy() - expected).max() < off / values.shape[axis] + 3e-3
        seen.add((view.across, view.down))
    assert len(seen) == 3  # every draw has its own window


# -- asked in every step -----------------------------------------------------------------------------------------------
def test_online_labels_are_the_experts_answers_without_gradient(experts, pool):
    for expert in experts.values():
        expert.train()
    labels = OnlineLabels(experts)(torch.stack([pool[index]["image"] for index in range(3)]))
    for task, expert in experts.items():
        assert not expert.training and not labels[task].requires_grad
        assert torch.equal(labels[task], outputs(expert, task, pool, 3)[:3])


# -- images that the patches do not divide -----------------------------------------------------------------------------
def test_image_and_labels_are_views_of_one_padded_frame(tmp_path):
    """Labels cover the padded image; mirrored, its padding is at the left of both."""
    expert = tiny.expert("depth", tiny.backbone(tiny.VIT), 1)
    pool = Unlabelled(tiny.TinySet({}, split="pool", size=(30, 44)), limit=2)
    write_labels({"depth": expert}, pool, tmp_path, 2)
    rules, size = {"depth": TASKS["depth"]}, expert.backbone.padded_size(30, 44)
    plain, mirrored = pool.fresh(), pool.fresh()
    plain.attach(CachedLabels(tmp_path, rules, None, 0, size))
    mirrored.attach(CachedLabels(tmp_path, rules, Augment(flip=1.0), 0, size))
    assert size == (32, 48) and plain[0]["image"].shape == (3, 30, 44)
    image, label = mirrored[0]["image"], mirrored[0][PREFIX + "depth"]
    assert torch.equal(image.flip(-1)[:, :30, :44], plain[0]["image"])
    assert torch.equal(image[:, :, :4], plain[0]["image"][:, :, -1:].expand(-1, -1, 4)[:, [*range(30), 29, 29]])
    assert torch.equal(label.flip(-1), plain[0][PREFIX + "depth"]) and label.shape[-2:] == (4, 6)


@pytest.mark.parametrize("labels", ["cached", "online"])
def test_a_transformer_is_adapted_at_another_size_than_its_own(tmp_path, labels):
    data = tiny.TinySet({}, split="pool", size=(44, 30))
    augment = {"flip": 0.5, "zoom": (1.0, 1.2)} if labels == "cached" else None
    options = {"labels": labels, "rounds": 3, "augment": augment}
    model, _ = adapt_tiny(tmp_path, spec=tiny.VIT, data=data, **options)
    coefficients = model.merge.coefficients.detach()
    assert bool(coefficients.isfinite().all()) and float(coefficients.std()) > 0
    assert model.model(torch.rand(1, 3, 45, 31) * 255, mode="predict")[0]["depth"].shape == (1, 45, 31)


# -- pools that only some experts label --------------------------------------------------------------------------------
def partly_labelled(count=6):
    """As many images of each of two sets; the second one is labelled by the expert of depth alone."""
    specs = [{"type": tiny.TinySet, "split": split, "count": count} for split in ("pool", "other")]
    return Unlabelled([specs[0], {**specs[1], "labels_of": ["depth"]}])


def test_an_expert_is_asked_for_the_images_that_it_labels_and_no_others(tmp_path, experts):
    pool, seen = partly_labelled(), Counter()
    expected = outputs(experts["normals"], "normals", pool, 4)[:6].half()
    for task, expert in experts.items():
        expert.register_forward_hook(lambda _, arguments, __, task=task: seen.update({task: len(arguments[0])}))
    write_labels(experts, pool, tmp_path, 4)
    assert seen == {"segmentation": 6, "depth": 12, "normals": 6}
    stored = torch.from_numpy(np.load(tmp_path / "normals.npy"))
    assert len(stored) == 12 and not stored[6:].any() and torch.equal(stored[:6], expected)
    write_labels(experts, pool, tmp_path, 4)
    assert sum(seen.values()) == 24
    everything = Unlabelled([{"type": tiny.TinySet, "count": 6, "split": split} for split in ("pool", "other")])
    assert everything.fingerprint == pool.fingerprint
    write_labels(experts, everything, tmp_path, 4)  # rows of zeros are never taken for labels
    assert seen == {"segmentation": 18, "depth": 12, "normals": 18}


def test_marks_say_whose_labels_count(tmp_path, experts):
    pool = partly_labelled()
    write_labels(experts, pool, tmp_path, 4)
    valid = labelled_images(pool, TASKS)
    pool.attach(CachedLabels(tmp_path, TASKS, Augment(flip=0.5), 1, None, valid))
    for index, normals in ((0, True), (11, False)):
        sample = pool[12 + index]
        assert sample["valid_depth"].tolist() == [[True]] and sample["valid_normals"].tolist() == [[normals]]
    assert labelled_images(Unlabelled(tiny.TinySet({})), TASKS) == {}  # nothing is marked where all experts label all


@pytest.mark.parametrize("labels", ["cached", "online"])
@pytest.mark.parametrize("objective", ["labels", "entropy"])
def test_a_task_learns_nothing_from_images_that_its_expert_does_not_label(tmp_path, labels, objective):
    """Loss of a mixed batch: of the labelled images alone, whatever the others show."""
    options = {"labels": labels, "objective": objective, "rounds": 1, "batch_size": 8, "balance": "initial"}
    rows = []
    for other in ("other", "another"):
        specs = [{"type": tiny.TinySet, "split": split, "count": 4} for split in ("pool", other)]
        pool = Unlabelled([specs[0], {**specs[1], "labels_of": ["depth"]}])
        adapt_tiny(tmp_path / other, data=pool, batchnorm="mean", **options)
        rows += read_history(tmp_path / other / "history.jsonl")
    first, second = rows
    for task in ("segmentation", "normals"):
        assert first[f"distance_{task}"] == pytest.approx(second[f"distance_{task}"], rel=1e-5)
        assert first[f"loss_{task}"] == pytest.approx(1, abs=1e-3)  # the scale is of the labelled images, too
    assert abs(first["distance_depth"] - second["distance_depth"]) > 1e-3 * first["distance_depth"]


def test_labels_of_a_task_that_is_not_there_is_refused_before_any_label_is_written(tmp_path):
    pool = Unlabelled([{"type": tiny.TinySet, "split": "pool", "labels_of": ["dept"]}])
    with pytest.raises(ValueError, match=r"pool \[0\]: labels_of: unknown task 'dept'. Did you mean 'depth'"):
        adapt_tiny(tmp_path, data=pool)
    assert not list(tmp_path.rglob("*.npy"))
