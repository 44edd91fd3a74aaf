"""Pixels on which the views disagree weigh less, or nothing, and move with their image."""

import numpy as np
import pytest
import torch
from builders import tiny
from builders.adapt_once import adapt_tiny
from mmengine.dataset import default_collate

from symerge_dense.adaptation.expert_labels import CachedLabels
from symerge_dense.adaptation.label_cache import variance_name, write_labels
from symerge_dense.adaptation.objective import PREFIX
from symerge_dense.adaptation.options import make_options
from symerge_dense.adaptation.symerge_model import SyMergeModel
from symerge_dense.adaptation.uncertainty import pixel_weights, variance_layers, with_uncertainty
from symerge_dense.datasets.transforms import Augment
from symerge_dense.datasets.unlabelled import Unlabelled
from symerge_dense.models.views import Views
from symerge_dense.tasks.depth import Depth
from symerge_dense.tasks.segmentation import Segmentation

VIEWS = {"flip": True}
WEIGHT = make_options(views=VIEWS, uncertainty="weight")
FILTER = make_options(views=VIEWS, uncertainty="filter", uncertain_share=0.25)


def test_weights_fall_with_the_variance_and_have_mean_one_in_each_image():
    variance = torch.tensor([[[0.0, 1.0], [2.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]]])
    weight = pixel_weights(variance, WEIGHT)
    expected = 1 / (2 + np.array([0.0, 1.0, 2.0, 5.0]))  # 2 is the image's mean
    assert np.allclose(weight[0].flatten(), expected / expected.mean())
    assert torch.equal(weight[1], torch.ones(2, 2))  # where all views agree, all pixels weigh alike


def test_a_filter_leaves_out_the_share_with_the_largest_variance():
    variance = torch.randperm(2 * 80, generator=torch.Generator().manual_seed(0)).view(2, 8, 10).float()
    weight = pixel_weights(variance, FILTER)
    for image, kept in zip(variance, weight, strict=True):
        assert int((kept == 0).sum()) == 20 and image[kept == 0].min() > image[kept > 0].max()
        assert torch.allclose(kept[kept > 0], torch.tensor(80 / 60))
    assert bool((pixel_weights(torch.zeros(1, 4, 4), FILTER) == 1).all())


def test_the_loss_is_the_weighted_mean_of_the_pixels():
    task, generator = Segmentation(classes=4), torch.Generator().manual_seed(1)
    output, label = (
        torch.randn(2, 4, 3, 5, generator=generator),
        torch.randn(2, 4, 3, 5, generator=generator).softmax(1),
    )
    weight = pixel_weights(torch.rand(2, 3, 5, generator=generator), WEIGHT)
    expected = np.average(task.pixel_loss(output, label).numpy(), weights=weight.numpy())
    assert float(task.loss(output, label, torch.ones_like(weight, dtype=torch.bool), weight)) == pytest.approx(expected)


def test_a_variance_moves_with_its_image(tmp_path):
    experts = tiny.family()[1]
    pool = Unlabelled(tiny.TinySet({}, split="pool"), limit=2)
    folder = write_labels(experts, pool, tmp_path, 2, Views(flip=True, scales=(1.0, 1.5)))
    rules = {**tiny.tasks(), **variance_layers(tiny.tasks(), WEIGHT)}
    plain, mirrored, zoomed = (
        CachedLabels(folder, rules, augment, seed=1)(pool[1], 0)
        for augment in (None, Augment(flip=1.0), Augment(flip=0.0, zoom=(2.0,)))
    )
    name = PREFIX + variance_name("depth")
    assert plain[name].shape == (1, 8, 12) and plain[name].dtype == torch.float32
    assert torch.equal(mirrored[name], plain[name].flip(-1)) and float(plain[name].std()) > 0
    assert set(zoomed[name].unique().tolist()) < set(plain[name].unique().tolist())
    assert not any("variance" in key for key in CachedLabels(folder, tiny.tasks())(pool[1], 0))
    batch, half = {name: plain[name][None]}, {"depth": torch.full((1, 8, 12), 0.5)}
    expected = pixel_weights(plain[name], WEIGHT)
    assert torch.equal(with_uncertainty({}, batch, ["depth"], WEIGHT)["depth"], expected)
    assert torch.equal(with_uncertainty(half, batch, ["depth"], WEIGHT)["depth"], expected / 2)
    assert with_uncertainty(half, batch, ["depth"], make_options(views=VIEWS)) is half


def test_the_student_minimises_the_weighted_mean(tmp_path):
    base, experts, _ = tiny.family()
    pool = Unlabelled(tiny.TinySet({}, split="pool"), limit=2)
    folder, found = write_labels(experts, pool, tmp_path, 2, Views()), {}
    for way in ("ignore", "weight", "filter"):
        options = make_options(views=VIEWS, uncertainty=way, statistics="running")
        student = SyMergeModel(base, experts, options)
        student.attach(experts)
        layers = {**student.model.tasks, **variance_layers(student.model.tasks, options)}
        batch = default_collate([CachedLabels(folder, layers)(pool[index], 0) for index in (0, 1)])
        found[way] = student.distances(batch.pop("image"), batch)["depth"].detach()
        output = student.outputs(torch.stack([pool[0]["image"], pool[1]["image"]]))["depth"].detach()
        error = (output - batch[PREFIX + "depth"].float()).abs()[:, 0]
    assert torch.allclose(found["ignore"], error.mean(), rtol=1e-4)
    variance = torch.from_numpy(np.load(folder / "depth.variance.npy"))[:, 0]
    for way in ("weight", "filter"):
        weight = pixel_weights(variance, make_options(views=VIEWS, uncertainty=way))
        assert torch.allclose(found[way], (error * weight).mean(), rtol=1e-4) and found[way] != found["ignore"]


def test_the_hook_puts_the_variance_beside_the_labels(tmp_path):
    model, _ = adapt_tiny(tmp_path, views=VIEWS, uncertainty="filter", rounds=1)
    assert bool(model.merge.coefficients.isfinite().all())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"uncertainty": "weight", "views": None}, r"adaptation.views=dict\(flip=True\)"),
        ({"uncertainty": "filter", "views": VIEWS, "labels": "online", "augment": None}, "labels='cached'"),
        ({"uncertainty": "wait", "views": VIEWS}, "Did you mean 'weight'"),
        ({"uncertain_share": 1.0}, "between 0 and 1"),
    ],
)
def test_refusals_name_the_value_and_the_remedy(options, told):
    with pytest.raises(ValueError, match=told):
        make_options(**options)


def test_a_task_whose_loss_takes_no_weights_is_refused_before_training(tmp_path):
    class Counts(Depth):
        def loss(self, output, target, valid=None):
            return super().loss(output, target, valid)

    tasks = {"depth": Depth(), "count": Counts()}
    make_options(views=VIEWS).check_tasks(tasks)
    with pytest.raises(ValueError, match=r"'count' \(Counts\) takes no weights.*`pixel_loss`.*'ignore'"):
        WEIGHT.check_tasks(tasks)


def test_weights_of_classes_need_a_loss_that_takes_them():
    class Parts(Segmentation):
        def loss(self, output, target, valid=None):
            return super().loss(output, target, valid)

    tasks = {"depth": Depth(), "parts": Parts(classes=5)}
    make_options(class_balance=0.0).check_tasks(tasks)
    with pytest.raises(ValueError, match=r"class_balance=0\.5: .*'parts' \(Parts\) takes no weights.*class_balance=0"):
        make_options().check_tasks(tasks)
