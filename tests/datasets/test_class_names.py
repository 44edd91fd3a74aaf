"""The known class lists, and the map from NYUv2's 40 classes to its 13, against the published grouping in words."""

import pytest
from builders.nyu_mat_files import LABELS13

from symerge_dense.datasets.class_names import CITYSCAPES7, CITYSCAPES19, NAMES_BY_COUNT, NYU13, NYU40, NYU40_TO_13
from symerge_dense.tasks.segmentation import Segmentation

GROUPS = {
    "bed": "bed",
    "books": "books",
    "ceiling": "ceiling",
    "chair": "chair",
    "floor": "floor, floor mat",
    "furniture": "cabinet, bookshelf, counter, shelves, dresser, refrigerator, night stand, other furniture",
    "picture": "picture",
    "sofa": "sofa",
    "table": "table, desk",
    "tv": "television",
    "wall": "wall, door",
    "window": "window, blinds, curtain",
    "objects": "pillow, mirror, clothes, paper, towel, shower curtain, box, whiteboard, person, toilet, sink, lamp, "
    "bathtub, bag, other structure, other prop",
}


def test_the_map_from_40_to_13_groups_what_belongs_together():
    found = {
        coarse: ", ".join(fine for fine, label in zip(NYU40, NYU40_TO_13, strict=True) if NYU13[label] == coarse)
        for coarse in NYU13
    }
    assert found == GROUPS


def test_the_map_is_that_of_the_official_file_counted_from_0():
    assert [label + 1 for label in NYU40_TO_13] == LABELS13[0].tolist()


@pytest.mark.parametrize(("names", "count"), [(NYU13, 13), (NYU40, 40), (CITYSCAPES7, 7), (CITYSCAPES19, 19)])
def test_names_are_distinct_words_and_the_default_of_segmentation(names, count):
    assert len(names) == len(set(names)) == count and NAMES_BY_COUNT[count] is names
    assert all(name.replace(" ", "").isalpha() and name == name.lower() for name in names)
    assert Segmentation(count).class_names == names
    assert Segmentation(count, class_names=[f"c{i}" for i in range(count)]).class_names[1] == "c1"


def test_a_number_of_classes_that_no_list_has_gets_numbers():
    assert Segmentation(3).class_names == ("class 0", "class 1", "class 2") and len(NAMES_BY_COUNT) == 4


def test_places_in_the_lists_that_other_software_relies_on():
    assert [CITYSCAPES19.index(name) for name in ("road", "pole", "sky", "car", "bicycle")] == [0, 5, 10, 13, 18]
    assert [CITYSCAPES7.index(name) for name in ("flat", "sky", "vehicle")] == [0, 4, 6]
    assert [NYU40.index(name) for name in ("wall", "floor", "ceiling", "television", "bag")] == [0, 1, 21, 24, 36]
