"""CutMix: image and labels are cut alike, at lines that all of them have, as seed, iteration and rank say."""

import pytest
import torch

from symerge_dense.adaptation.cutmix import AREA, CutMix


def batch(count=4, head=(8, 12)):
    """Images, labels, weights and marks that hold their number in the batch."""
    number = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1)
    labels = {"depth": number.expand(-1, 1, *head), "segmentation": number.half().expand(-1, 4, 4, 6)}
    marks = torch.tensor([True, False, True, False])[:count].view(-1, 1, 1)
    return number.expand(-1, 3, 32, 48), [labels, {"depth": number[:, 0].expand(-1, *head)}, {"depth": marks}]


def test_a_rectangle_of_every_image_and_all_its_labels_is_anothers():
    shares = []
    for step in range(30):
        image, maps = batch()
        mixed, (labels, weights, valid) = CutMix(1.0, (3, step, 0))(image, maps)
        for number in range(4):
            own = mixed[number, 0] == number
            rows, columns = torch.where(~own)
            box = ~own[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert box.all() and len(mixed[number].unique()) == 2  # a rectangle, of one other image
            edges = (int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1)
            assert all(edge % 8 == 0 for edge in edges)  # lines of the coarsest labels
            cut = mixed[number, 0]
            assert torch.equal(labels["depth"][number, 0], cut[::4, ::4])
            assert torch.equal(weights["depth"][number], cut[::4, ::4])
            assert torch.equal(labels["segmentation"][number, 3].float(), cut[::8, ::8])
            assert torch.equal(valid["depth"][number], cut[::4, ::4] % 2 == 0)  # marks of images 0 and 2
            shares.append(float((~own).float().mean()))
    assert sum(shares) / len(shares) == pytest.approx(AREA, abs=0.05) and len(set(shares)) > 3


def test_it_follows_from_seed_iteration_and_rank():
    image, maps = batch()
    views = {key: CutMix(1.0, key)(image, maps)[0] for key in ((0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0))}
    assert torch.equal(views[0, 0, 0], CutMix(1.0, (0, 0, 0))(image, maps)[0])
    assert not any(torch.equal(views[0, 0, 0], view) for key, view in views.items() if key != (0, 0, 0))


def test_the_probability_is_per_batch_and_a_single_image_stays_as_it_is():
    image, maps = batch()
    mixed = [not torch.equal(CutMix(0.3, (1, step, 0))(image, maps)[0], image) for step in range(300)]
    assert 0.2 < sum(mixed) / len(mixed) < 0.4
    alone, labels = batch(1)
    assert torch.equal(CutMix(1.0, (0, 0, 0))(alone, labels)[0], alone)


def test_labels_that_do_not_divide_the_image_are_cut_within_a_pixel():
    image, (labels, *_) = batch(head=(7, 11))
    for step in range(10):
        mixed, (made,) = CutMix(1.0, (0, step, 0))(image, [{"depth": labels["depth"]}])
        for number in range(4):
            large, small = ((where != number).float() for where in (mixed[number, 0], made["depth"][number, 0]))
            assert abs(float(large.mean() - small.mean())) < 0.03
