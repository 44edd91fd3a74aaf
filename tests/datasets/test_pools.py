"""Several data sets as one pool: which image is whose, who labels it, and every error names the pool."""

import numpy as np
import pytest
import torch
from builders import tiny
from builders.photos import write_photos

from symerge_dense.datasets.pools import Pools
from symerge_dense.datasets.unlabelled import Unlabelled


def sets(first=4, second=3, **more):
    """Two sets of different images, the second one with further keys."""
    return [
        {"type": tiny.TinySet, "count": first, "split": "a"},
        {"type": tiny.TinySet, "count": second, "split": "b", **more},
    ]


def test_images_come_one_set_after_the_other_and_a_limit_takes_the_first():
    view = Unlabelled([{**sets()[0], "limit": 2}, sets()[1]])
    own = [
        tiny.TinySet({}, split=split).image(index)
        for split, index in (("a", 0), ("a", 1), *(("b", i) for i in range(3)))
    ]
    assert len(view) == 5
    for index, image in enumerate(own):
        sample = view[5 * 3 + index]  # the fourth draw
        assert sample["index"] == index
        np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), image)


def test_one_set_in_a_list_is_that_set():
    alone, listed = (Unlabelled(spec, limit=3) for spec in (sets()[0], sets()[:1]))
    assert alone.fingerprint == listed.fingerprint and len(alone) == len(listed) == 3
    assert all(torch.equal(alone.image(i), listed.image(i)) for i in range(3))


def test_objects_and_specs_may_be_mixed_and_each_is_resized_by_itself(tmp_path):
    write_photos(tmp_path, 2, (48, 64))
    view = Unlabelled([tiny.TinySet({}, 3), {"type": "ImageFolder", "root": str(tmp_path), "size": tiny.SIZE}])
    view.check_images()
    assert {tuple(view.image(index).shape) for index in range(len(view))} == {(3, *tiny.SIZE)}
    assert view._source.image_name(4).endswith("0001.jpg") and view._source.image_size(4) == tiny.SIZE


def test_held_out_images_come_from_every_set_and_keep_their_experts():
    view = Unlabelled(sets(6, 6, labels_of=["depth"]))
    rest, held_out = view.split(4)
    assert len(rest) == 8 and len(held_out) == 4
    assert held_out.labelled_by("normals").tolist() == [True, True, False, False]
    assert rest.labelled_by("normals").tolist() == [True] * 4 + [False] * 4
    assert rest.labelled_by("depth").all()
    same = Unlabelled(sets(6, 6, labels_of=["depth"]), held_out=4)
    assert all(torch.equal(same.image(index), rest.image(index)) for index in range(8))


def test_the_fingerprint_sees_every_set():
    """A set of 2 among 200 would be missed by 16 images that are spread over all of them."""
    small = [sets(200, 2), sets(200, 2)]
    small[1][1]["split"] = "c"
    moved = [{**sets(199, 3)[0]}, sets(199, 3)[1]]
    prints = [Unlabelled(spec).fingerprint for spec in (*small, moved)]
    assert len(set(prints)) == 3
    assert Unlabelled(small[0]).fingerprint == prints[0]


def test_remarks_of_all_sets_are_told(tmp_path):
    for name in ("one", "two"):
        write_photos(tmp_path / name, 2, tiny.SIZE)
        (tmp_path / name / "film.mp4").write_bytes(b"no image")
    view = Unlabelled([{"type": "ImageFolder", "root": str(tmp_path / name)} for name in ("one", "two")])
    assert [
        str(tmp_path / name) in line for name, line in zip(("one", "two"), view.remark.splitlines(), strict=True)
    ] == [
        True,
        True,
    ]


# -- errors ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"type": "ImageFolder", "root": "EMPTY"}, r"pool \[1\] \(ImageFolder\): .*no image"),
        ({"type": "ImageFolder", "root": "MISSING"}, r"pool \[1\] \(ImageFolder\): .*no such folder"),
        ({"type": "ImageFolder", "root": "BROKEN"}, r"pool \[1\] \(ImageFolder\): .*0000\.jpg"),
        ({"type": "ImageFolder", "root": "LARGE"}, r"differ in size.*pool \[1\] \(ImageFolder\): 48 x 64.*size="),
        ({"type": tiny.TinySet, "count": 0}, r"pool \[1\] \(TinySet\): there is no image"),
        ({"type": tiny.TinySet, "labels_of": "depth"}, r"pool \[1\] \(TinySet\): labels_of='depth'; give a list"),
        ({"type": tiny.TinySet, "labels_of": []}, r"pool \[1\] \(TinySet\): labels_of=\[\]; give a list"),
        ({"type": tiny.TinySet, "limit": 0}, r"pool \[1\] \(TinySet\): limit=0: must be"),
        ({"type": tiny.TinySet, "limit": 2.5}, r"pool \[1\] \(TinySet\): limit=2.5: must be"),
        ({"type": "ImageFolde", "root": "LARGE"}, r"pool \[1\] .*Did you mean 'ImageFolder'"),
        ({"root": "LARGE"}, r"pool \[1\] .*no 'type'"),
        (7, r"pool \[1\] \(int\): .*not int"),
    ],
)
def test_a_pool_that_does_not_fit_is_named(tmp_path, monkeypatch, second, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    write_photos(tmp_path / "BROKEN", 2)[0].write_bytes(b"no image")
    write_photos(tmp_path / "LARGE", 2)
    with pytest.raises(ValueError, match=told):
        Unlabelled([sets()[0], second])


def test_a_broken_image_behind_the_first_is_found_and_one_beyond_the_limit_is_not_read(tmp_path):
    write_photos(tmp_path, 4, tiny.SIZE)[2].write_bytes(b"no image")
    folder = {"type": "ImageFolder", "root": str(tmp_path)}
    with pytest.raises(ValueError, match=r"pool \[1\] \(ImageFolder\): 1 of 4 images cannot be read:\n.*0002\.jpg"):
        Unlabelled([sets()[0], folder]).check_images()
    Unlabelled([sets()[0], {**folder, "limit": 2}]).check_images()
    Unlabelled([sets()[0], folder], limit=6).check_images()


@pytest.mark.parametrize("given", [[], "photos", {"type": tiny.TinySet}])
def test_pools_are_a_list(given):
    with pytest.raises(ValueError, match="give a list of one data set or more"):
        Pools(given)


def test_pools_have_no_target():
    with pytest.raises(ValueError, match="unknown target"):
        Pools(sets(), tasks={"depth": {"type": "depth"}})
    with pytest.raises(ValueError, match="no target 'depth'"):
        Pools(sets()).target(0, "depth")


def test_labels_of_an_unknown_task():
    view = Unlabelled(sets(labels_of=["dept"]))
    with pytest.raises(ValueError, match=r"pool \[1\]: labels_of: unknown task 'dept'. Did you mean 'depth'"):
        view.check_tasks(["depth", "normals"])


def test_a_task_that_no_image_is_labelled_for():
    only = [{**spec, "labels_of": ["depth"]} for spec in sets()]
    with pytest.raises(ValueError, match="no pool has labels of normals"):
        Unlabelled(only).check_tasks(["depth", "normals"])
    cut = Unlabelled([only[0], sets()[1]], limit=4)
    with pytest.raises(ValueError, match="no image in view is labelled by the expert of normals"):
        cut.check_tasks(["depth", "normals"])
