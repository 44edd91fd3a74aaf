"""NYUv2 in Parquet shards: the numbers as they were written, in the memory of a few rows; every bad file is named."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.nyu_other_files import table, write_parquet
from torch.utils.data import DataLoader

from symerge_dense.datasets.nyuv2 import parquet_reader as parquet_rows
from symerge_dense.datasets.nyuv2.parquet import NYUv2Parquet
from symerge_dense.datasets.targets import boundary

SIZE = (12, 16)
TASKS = {"segmentation": {}, "edges": {}, "depth": {}, "normals": {}}
COUNTS = {"train": 11, "val": 4}


def row(seed, size=SIZE):
    """One image as documented, channels first; different for every seed."""
    rng = np.random.default_rng(seed)
    label = np.repeat(rng.integers(-1, 13, (size[0] // 4, size[1] // 4)), 4, 0).repeat(4, 1)
    depth = rng.uniform(0.7, 10, (1, *size)).astype(np.float32)
    depth[0, 0, :3] = 0
    normal = rng.normal(size=(3, *size))
    normal = (normal / np.linalg.norm(normal, axis=0)).astype(np.float32)
    normal[:, 2:4, 5:7] = 0
    image = (rng.integers(0, 256, (3, *size)) / 255).astype(np.float32)
    return {"image": image, "segmentation": label, "depth": depth, "normal": normal}


ROWS = {"train": [row(index) for index in range(11)], "val": [row(100 + index) for index in range(4)]}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_parquet(tmp_path_factory.mktemp("parquet"), ROWS)


@pytest.fixture
def own(tmp_path):
    """A root that the test may damage."""
    return write_parquet(tmp_path, ROWS)


def shard(root, number=0, split="train"):
    return root / "data" / f"{split}-{number:05}-of-00002.parquet"


def rewrite(path, change):
    """A shard with its table changed."""
    pq.write_table(change(pq.read_table(path)), path)


def replaced(name, values, kind):
    """A change that puts other values into a column."""

    def change(held):
        return held.set_column(held.schema.get_field_index(name), name, pa.array(values, kind))

    return change


def edited(path, name, number, change):
    """Row ``number`` of a shard with ``change(array)`` in place of a column's array."""
    held = pq.read_table(path)
    values = held.column(name).to_pylist()
    values[number] = change(np.array(values[number])).tolist()
    pq.write_table(
        held.set_column(held.schema.get_field_index(name), name, pa.array(values, held.field(name).type)), path
    )


# -- the numbers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("split", ["train", "val"])
def test_values_are_bit_identical_in_the_order_of_the_shards(root, split):
    dataset = NYUv2Parquet(root, split, TASKS)
    assert len(dataset) == COUNTS[split] and dataset.packaging == "parquet" and len(dataset.classes) == 13
    for index, stored in enumerate(ROWS[split]):
        sample = dataset[index]
        assert sample["index"] == index
        assert np.array_equal(np.round(sample["image"].numpy()), np.round(stored["image"] * 255))
        assert np.array_equal(sample["image"].numpy(), stored["image"] * np.float32(255))
        label = np.where(stored["segmentation"] < 0, 255, stored["segmentation"])
        assert np.array_equal(sample["segmentation"].numpy(), label)
        assert np.array_equal(sample["edges"].numpy()[0], boundary(label, label != 255))
        assert np.array_equal(sample["depth"].numpy(), stored["depth"])
        assert np.array_equal(sample["normals"].numpy(), stored["normal"])


def test_types_are_those_of_a_sample(root):
    sample = NYUv2Parquet(root, "val", TASKS)[0]
    found = {name: (str(value.dtype), tuple(value.shape)) for name, value in sample.items() if name != "index"}
    assert found == {
        "image": ("torch.float32", (3, *SIZE)),
        "segmentation": ("torch.int64", SIZE),
        "edges": ("torch.float32", (1, *SIZE)),
        "depth": ("torch.float32", (1, *SIZE)),
        "normals": ("torch.float32", (3, *SIZE)),
    }


def test_any_order_gives_the_same(root):
    dataset = NYUv2Parquet(root, "train", TASKS)
    for index in (10, 0, 7, 7, 3, 4, 6, 5, 10, 9):
        assert np.array_equal(dataset.target(index, "depth"), ROWS["train"][index]["depth"][0])
        assert np.array_equal(dataset.image(index), ROWS["train"][index]["image"].transpose(1, 2, 0) * np.float32(255))
    for index in (-1, 11):
        with pytest.raises(IndexError, match=rf"row {index}: there are 11"):
            dataset.image(index)


def test_small_row_groups_and_shards_in_the_root_itself(tmp_path):
    dataset = NYUv2Parquet(write_parquet(tmp_path, ROWS, shards=3, folder=".", row_group_size=2), "train", TASKS)
    assert [path.name for path in dataset.source_files] == [f"train-0000{n}-of-00003.parquet" for n in range(3)]
    assert all(
        np.array_equal(sample["depth"], stored["depth"]) for sample, stored in zip(dataset, ROWS["train"], strict=True)
    )


def test_older_uploads_carry_a_hash_in_their_names(own):
    for path in (own / "data").glob("train-*"):
        path.rename(path.with_name(f"{path.stem}-0a1b2c3d4e5f6789.parquet"))
    assert len(NYUv2Parquet(own)) == 11


@pytest.mark.parametrize("registered", [False, True])
def test_extension_types_of_the_datasets_library(own, registered):
    """Its writer marks array columns with an extension type, which Arrow knows only where that library is loaded."""

    class Array3D(pa.ExtensionType):
        def __init__(self):
            super().__init__(pa.list_(pa.list_(pa.list_(pa.float32()))), "datasets.features.features.Array3D")

        def __arrow_ext_serialize__(self):
            return b'[[null, 12, 16], "float32"]'

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type, serialized):
            return cls()

    for path in (shard(own, 0), shard(own, 1)):
        rewrite(
            path,
            lambda held: held.set_column(
                0, "image", pa.ExtensionArray.from_storage(Array3D(), held.column("image").combine_chunks())
            ),
        )
    if registered:
        pa.register_extension_type(Array3D())
    try:
        dataset = NYUv2Parquet(own, "train")
        assert np.array_equal(dataset.image(9), ROWS["train"][9]["image"].transpose(1, 2, 0) * np.float32(255))
    finally:
        if registered:
            pa.unregister_extension_type("datasets.features.features.Array3D")


def test_impossible_depth_and_normals_are_invalid(own):
    def spoil(array):
        array[..., 5, 5], array[..., 5, 6], array[..., 5, 7] = np.nan, -np.inf, -0.1
        return array

    edited(shard(own), "depth", 1, spoil)
    edited(shard(own), "normal", 1, spoil)
    dataset = NYUv2Parquet(own, "train", TASKS)
    for name in ("depth", "normals"):
        assert not dataset.target(1, name)[5, 5:8].any() and np.isfinite(dataset.target(1, name)).all()
        assert dataset.target(1, name)[6, 5:8].all()


# -- what is read, and in how much memory -----------------------------------------------------------------------------
def test_only_the_columns_of_what_is_asked_for_are_read(root, monkeypatch):
    asked = []
    iterate = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda file, **options: asked.append(tuple(options["columns"])) or iterate(file, **options),
    )
    dataset = NYUv2Parquet(root, "train", TASKS)
    dataset.image(3)
    assert set(asked) == {("image",)}
    dataset.target(3, "edges")
    assert set(asked) == {("image",), ("segmentation",)}
    for _ in dataset:
        pass
    assert set(asked) == {("image",), ("segmentation",), ("depth",), ("normal",)}


def test_reading_in_order_opens_each_row_group_of_a_column_once(root, monkeypatch):
    opened = []
    cursor = parquet_rows._Cursor
    monkeypatch.setattr(
        parquet_rows, "_Cursor", lambda group, name: opened.append((group.path.name, name)) or cursor(group, name)
    )
    for _ in NYUv2Parquet(root, "train", TASKS):
        pass
    assert len(opened) == len(set(opened)) == 2 * 4


def test_columns_of_other_tasks_may_be_missing(own):
    for path in (shard(own, 0), shard(own, 1)):
        rewrite(path, lambda held: held.drop_columns(["normal", "noise"]))
    assert NYUv2Parquet(own, "train", {"depth": {}})[0]["depth"].shape == (1, *SIZE)
    with pytest.raises(ValueError, match=r"train-00000-of-00002\.parquet: no column 'normal', only image, seg"):
        NYUv2Parquet(own, "train", TASKS)


READ = """
import sys, pathlib, pyarrow
from symerge_dense.datasets.nyuv2.parquet_reader import ColumnType, ParquetColumn, row_groups
groups = row_groups([pathlib.Path(sys.argv[1])], {"normal": ColumnType(3, "floating point")})
column = ParquetColumn(groups, "normal")
print(len(groups), sum(column[index].size for index in range(groups[-1].end)))
print(pyarrow.default_memory_pool().max_memory())
"""


def test_memory_does_not_grow_with_the_row_group(tmp_path):
    """In a process of its own, because Arrow's peak is of the process's whole life."""
    size, count = (64, 96), 200
    write_parquet(tmp_path, {"train": [row(index, size) for index in range(count)]}, shards=1)
    result = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "data" / "train-00000-of-00001.parquet")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    groups, numbers, peak = map(int, result.stdout.split())
    column = count * 3 * size[0] * size[1]
    assert (groups, numbers) == (1, column)
    assert peak < 7e6 < 4 * column / 2, "some pages of 1 MB, not the column of 15 MB"


# -- workers ----------------------------------------------------------------------------------------------------------
def test_forked_workers_read_on_their_own(root):
    dataset = NYUv2Parquet(root, "train", {"depth": {}})
    dataset[4]  # the parent is in the middle of a file
    loader = DataLoader(dataset, batch_size=2, num_workers=2, sampler=range(11), multiprocessing_context="fork")
    depth = np.concatenate([batch["depth"] for batch in loader])
    assert np.array_equal(depth, np.stack([stored["depth"] for stored in ROWS["train"]]))
    assert np.array_equal(dataset[5]["depth"], ROWS["train"][5]["depth"])


def test_pickles_while_reading(root):
    dataset = NYUv2Parquet(root, "val", TASKS)
    dataset[1]
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again[2]["normals"], dataset[2]["normals"])


# -- bad input --------------------------------------------------------------------------------------------------------
def test_missing_shards_are_named(tmp_path):
    write_parquet(tmp_path, {"train": ROWS["train"]}, shards=4)
    for number in (1, 3):
        (tmp_path / "data" / f"train-{number:05}-of-00004.parquet").unlink()
    with pytest.raises(
        ValueError,
        match=r"of 4 'train' shards 2 are missing: train-00001-of-00004\.parquet, "
        r"train-00003-of-00004\.parquet; fetch",
    ):
        NYUv2Parquet(tmp_path)


def test_mixed_series_are_refused(own):
    shard(own).with_name("train-00002-of-00003.parquet").write_bytes(shard(own).read_bytes())
    with pytest.raises(ValueError, match=r"not of one series: train-00000-of-00002\.parquet, .*keep the files of one"):
        NYUv2Parquet(own)


@pytest.mark.parametrize("place", ["missing", "empty", "other split"])
def test_nothing_there_says_what_to_fetch(tmp_path, own, place):
    root = {"missing": tmp_path / "nowhere", "empty": tmp_path / "empty", "other split": own}[place]
    (tmp_path / "empty").mkdir()
    for path in own.glob("data/val-*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no Parquet shard of split 'val'(.|\n)*hf download tanganke/nyuv2"):
        NYUv2Parquet(root, "val")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "'train' and 'val'"),
        ({"tasks": {"segmentation": {"classes": 40}}}, "40-class labels are in the packagings mat, nyud_mt and nyudv2"),
        ({"tasks": {"albedo": {}}}, "unknown target 'albedo'"),
    ],
)
def test_bad_arguments(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        NYUv2Parquet(root, **arguments)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-40],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"no parquet at all",
        lambda data: data[:-100] + bytes(92) + data[-8:],
    ],
    ids=["tail", "half", "empty", "text", "footer"],
)
def test_a_damaged_file_is_named(own, damage):
    shard(own, 1).write_bytes(damage(shard(own, 1).read_bytes()))
    with pytest.raises(ValueError, match=r"train-00001-of-00002\.parquet: not a readable Parquet file.*fetch this"):
        NYUv2Parquet(own)


def test_damaged_data_behind_a_sound_footer_are_named(own):
    data = bytearray(shard(own).read_bytes())
    chunk = pq.read_metadata(shard(own)).row_group(0).column(3)
    assert chunk.path_in_schema.startswith("normal.")
    first = chunk.data_page_offset if chunk.dictionary_page_offset is None else chunk.dictionary_page_offset
    data[first : first + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    shard(own).write_bytes(data)
    dataset = NYUv2Parquet(own, "train", TASKS)
    for _ in range(2):  # the failure leaves nothing behind
        with pytest.raises(ValueError, match=r"train-00000-of-00002\.parquet: not a readable Parquet file"):
            dataset.target(0, "normals")
    assert np.array_equal(dataset.target(0, "depth"), ROWS["train"][0]["depth"][0])
    assert np.array_equal(dataset.target(10, "normals"), ROWS["train"][10]["normal"].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("name", "values", "kind", "found"),
    [
        ("image", [b"png"] * 6, pa.binary(), "binary, expected 3 nested lists of floating point"),
        ("image", [[[1.0]]] * 6, pa.list_(pa.list_(pa.float32())), "expected 3 nested lists"),
        ("segmentation", [[[1.0]]] * 6, pa.list_(pa.list_(pa.float32())), "expected 2 nested lists of integer"),
        ("depth", [[[["1"]]]] * 6, pa.list_(pa.list_(pa.list_(pa.string()))), "expected 3 nested lists of floating"),
    ],
)
def test_a_column_of_another_type_is_named(own, name, values, kind, found):
    rewrite(shard(own), replaced(name, values, kind))
    with pytest.raises(ValueError, match=rf"train-00000-of-00002\.parquet: column '{name}' holds .*{found}"):
        NYUv2Parquet(own, "train", TASKS)


RAGGED = [[[1.0, 2.0], [3.0]]]
HOLED = [[[1.0, None], [3.0, 4.0]]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (RAGGED, "lengths"),
        (HOLED, "1 of its numbers are missing"),
        (None, "lengths"),
        ([], "lengths"),
        ([[[1.0, 2.0], [3.0, 4.0]]], r"shape \(1, 2, 2\), expected \(1, 12, 16\)"),
        ([np.full(SIZE, np.nan).tolist()], "no finite number"),
    ],
)
def test_a_row_that_is_no_array_of_the_frame_is_named(own, value, message):
    values = pq.read_table(shard(own)).column("depth").to_pylist()
    values[2] = value
    rewrite(shard(own), replaced("depth", values, pa.list_(pa.list_(pa.list_(pa.float32())))))
    dataset = NYUv2Parquet(own, "train", TASKS)
    with pytest.raises(ValueError, match=rf"-of-00002\.parquet: row 2 of row group 0, column 'depth': .*{message}"):
        dataset.target(2, "depth")
    assert np.array_equal(dataset.target(3, "depth"), ROWS["train"][3]["depth"][0])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("segmentation", 13, r"label values \[13\], allowed are -1\.\.12"),
        ("segmentation", -2, r"label values \[-2\]"),
        ("image", 1.5, r"image values .*1\.5, expected 0\.\.1"),
        ("image", np.nan, "image values nan"),
        ("image", -0.5, "image values -0.5"),
    ],
)
def test_values_beyond_their_range_are_named(own, name, value, message):
    def spoil(array):
        array[..., 3, 4] = value
        return array

    edited(shard(own, 1), name, 2, spoil)
    dataset = NYUv2Parquet(own, "train", TASKS)
    with pytest.raises(ValueError, match=rf"00001-of-00002\.parquet: row 2 of row group 0, column '{name}': {message}"):
        dataset[6 + 2]


def test_shards_without_rows_are_refused(own):
    for number in (0, 1):
        rewrite(shard(own, number), lambda held: held.slice(0, 0))
    with pytest.raises(ValueError, match="holds no rows"):
        NYUv2Parquet(own)


def test_the_written_table_is_the_published_one():
    held = table(ROWS["val"])
    assert held.column_names == ["image", "segmentation", "depth", "normal", "noise"]
    assert b'"shape": [3, 12, 16], "dtype": "float32", "_type": "Array3D"' in held.schema.metadata[b"huggingface"]
    assert np.array_equal(np.array(held.column("image")[1].as_py(), np.float32), ROWS["val"][1]["image"])
