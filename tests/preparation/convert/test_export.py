"""Writing the npy layout: what lands on disk, and that an interrupted export ends with the bytes of an unbroken one."""

import tracemalloc

import numpy as np
import pytest
from builders.tiny import SIZE, TinySet, tasks

from symerge_dense.datasets.array_checksums import NAME, array_checksum, read_checksums
from symerge_dense.datasets.base import DenseDataset
from symerge_dense.datasets.nyuv2.mtan import NYUv2
from symerge_dense.preparation.convert.export import export, is_whole, missing_bytes

COUNT = 3
CHANNELS = {"image": (3,), "label": (), "depth": (1,), "normal": (3,)}
FILES = [f"{part}/{index}.npy" for index in range(COUNT) for part in CHANNELS]  # in the order of writing


class Holes(TinySet):
    """TinySet with pixels that have no label, and normals of any length. Reading stops at a set number of arrays."""

    def __init__(self, count=COUNT, stop_at=None, **options):
        super().__init__(tasks(), count=count, **options)
        self.reads, self.stop_at = 0, stop_at

    def _read(self):
        if self.reads == self.stop_at:
            raise KeyboardInterrupt
        self.reads += 1

    def image(self, index):
        self._read()
        return super().image(index)

    def target(self, index, name):
        self._read()
        values = super().target(index, name).copy()
        if name == "segmentation":
            values[:4] = 255
        if name == "depth":
            values[0, :4], values[1, :2] = (0, -1, np.nan, np.inf), (0.5, 1e-3)
        if name == "normals":
            values[0, :6] = [(0, 0, 0), (0, 0.4, 0), (0, 0, 2), (np.nan, 1, 0), (0.6, 0, 0), (1, 2, 2)]
        return values


def contents(folder):
    """All files but the list of checksums, which is read in place of their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != NAME]
    assert not (folder / NAME).exists() or read_checksums(folder) == {
        path.relative_to(folder).as_posix(): array_checksum(load(path)) for path in files
    }
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def load(path):
    return np.load(path, allow_pickle=False)


def test_the_layout_is_float32_arrays_by_number(tmp_path):
    assert export(Holes(), tmp_path / "train") == len(FILES)
    assert set(contents(tmp_path / "train")) == set(FILES)
    for file in FILES:
        array = load(tmp_path / "train" / file)
        assert (array.dtype, array.shape) == (np.float32, (*SIZE, *CHANNELS[file.split("/")[0]]))


def test_values_are_those_of_the_source(tmp_path):
    source = Holes()
    export(source, tmp_path)
    for index in range(COUNT):
        np.testing.assert_array_equal(load(tmp_path / f"image/{index}.npy") * np.float32(255), source.image(index))
        label, truth = load(tmp_path / f"label/{index}.npy"), source.target(index, "segmentation")
        assert (label[:4] == -1).all() and (label[4:] == truth[4:]).all()
        depth = load(tmp_path / f"depth/{index}.npy")[..., 0]
        assert depth[0, :4].tolist() == [0, 0, 0, 0] and depth[1, :2].tolist() == [0.5, np.float32(1e-3)]
        np.testing.assert_array_equal(depth[2:], source.target(index, "depth")[2:])


def test_normals_are_unit_or_zero(tmp_path):
    source = Holes(count=1)
    export(source, tmp_path)
    normal = load(tmp_path / "normal/0.npy")
    expected = [(0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 0, 0), (1, 0, 0), (1 / 3, 2 / 3, 2 / 3)]
    np.testing.assert_allclose(normal[0, :6], expected, atol=1e-6)
    np.testing.assert_array_equal(normal[1:], source.target(0, "normals")[1:].astype(np.float32))


def test_float_images_are_divided_too(tmp_path):
    class Fine(Holes):
        def image(self, index):
            return super().image(index).astype(np.float32) + np.float32(0.25)

    export(Fine(count=1), tmp_path)
    np.testing.assert_allclose(load(tmp_path / "image/0.npy") * 255, Fine().image(0), rtol=1e-6)


def test_size_and_tasks_of_the_source_decide(tmp_path):
    source = TinySet({"depth": tasks()["depth"]}, count=2, size=(16, 24))
    assert export(source, tmp_path) == 4
    assert set(contents(tmp_path)) == {"image/0.npy", "image/1.npy", "depth/0.npy", "depth/1.npy"}
    assert load(tmp_path / "depth/1.npy").shape == (16, 24, 1)
    np.testing.assert_array_equal(load(tmp_path / "depth/1.npy")[..., 0], source.resized_target(1, "depth"))


def test_it_is_read_as_nyuv2(tmp_path):
    source = Holes()
    export(source, tmp_path / "val")
    read = NYUv2(tmp_path, "val", tasks={**tasks(), "segmentation": {"classes": 13}})
    assert len(read) == COUNT
    for index in range(COUNT):
        np.testing.assert_array_equal(read.image(index), source.image(index))
        np.testing.assert_array_equal(read.target(index, "segmentation"), source.target(index, "segmentation"))


@pytest.mark.parametrize("at", range(len(FILES)))
def test_an_interrupted_export_goes_on(tmp_path, at):
    export(Holes(), tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        export(Holes(stop_at=at, size=SIZE), tmp_path / "broken")
    assert set(contents(tmp_path / "broken")) == set(FILES[:at])
    again = Holes(size=SIZE)
    assert export(again, tmp_path / "broken") == len(FILES) - at == again.reads
    assert read_checksums(tmp_path / "broken") == read_checksums(tmp_path / "unbroken") != {}
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


def test_an_interrupted_write_leaves_no_file(tmp_path, monkeypatch):
    def cut_off(file, array, **_):
        file.write(b"\x93NUMPY")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np, "save", cut_off)
        export(Holes(), tmp_path)
    assert contents(tmp_path) == {}
    assert export(Holes(), tmp_path) == len(FILES) and set(contents(tmp_path)) == set(FILES)


def test_a_complete_export_is_left_alone(tmp_path):
    export(Holes(), tmp_path)
    before = {path: path.stat() for path in tmp_path.rglob("*.npy")}
    again = Holes(size=SIZE)
    assert export(again, tmp_path) == 0 == missing_bytes(again, tmp_path) == again.reads
    assert {path: path.stat() for path in tmp_path.rglob("*.npy")} == before


def damage(path, kind):
    data, array = path.read_bytes(), load(path)
    if kind == "objects":
        np.save(path, np.array([{}]), allow_pickle=True)
        return
    if kind in ("another shape", "float64"):
        np.save(path, array[:-1] if kind == "another shape" else array.astype(np.float64))
        return
    path.write_bytes({"empty": b"", "cut off": data[:-1], "too long": data + b"\0", "no array": b"x" * len(data)}[kind])


@pytest.mark.parametrize("kind", ["empty", "cut off", "too long", "no array", "another shape", "float64", "objects"])
def test_a_damaged_file_is_written_again(tmp_path, kind):
    export(Holes(), tmp_path)
    whole = contents(tmp_path)
    damage(tmp_path / "depth/1.npy", kind)
    assert not is_whole(tmp_path / "depth/1.npy", (*SIZE, 1))
    assert export(Holes(), tmp_path) == 1 and contents(tmp_path) == whole


def test_a_number_written_otherwise_is_not_that_file(tmp_path):
    export(Holes(), tmp_path)
    (tmp_path / "depth/1.npy").rename(tmp_path / "depth/01.npy")
    assert export(Holes(), tmp_path) == 1 and (tmp_path / "depth/1.npy").is_file()


def test_too_small_a_disk_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"are needed and .* GB are free"):
        export(Holes(count=10**13), tmp_path / "new" / "train")
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_counted(tmp_path):
    full = missing_bytes(Holes(), tmp_path)
    export(Holes(), tmp_path)
    assert full == sum(len(data) for data in contents(tmp_path).values())
    (tmp_path / "normal/2.npy").unlink()
    assert missing_bytes(Holes(), tmp_path) == 128 + 4 * 3 * SIZE[0] * SIZE[1]


def test_images_of_different_size_are_refused(tmp_path):
    class Growing(Holes):
        def image(self, index):
            return np.zeros((SIZE[0] + index, SIZE[1], 3), np.uint8)

    with pytest.raises(ValueError, match=r"image/1\.npy.*\(33, 48, 3\).*\(32, 48, 3\).*give the size"):
        export(Growing(), tmp_path)


def test_one_image_is_in_memory_at_a_time(tmp_path):
    class Large(DenseDataset):
        serves = frozenset({"normals"})

        def __len__(self):
            return 12

        def image(self, index):
            return np.full((256, 512, 3), index, np.uint8)

        def target(self, index, name):
            return np.full((256, 512, 3), 0.6, np.float32)

    source = Large({"normals": tasks()["normals"]})
    tracemalloc.start()
    export(source, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * source.target(0, "normals").nbytes < sum(len(data) for data in contents(tmp_path).values()) / 2
