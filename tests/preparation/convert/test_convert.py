"""A packaging into a folder: the manifest tells the truth at every moment, and nothing of other origin is mixed in."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders.nyu_mat_files import write_mat
from builders.nyu_other_files import write_nyud_mt, write_parquet
from builders.pipeline_tiny import tool
from builders.prepared_python import prepared_spawn

from symerge_dense.preparation.convert import fingerprints as prints
from symerge_dense.preparation.convert.convert import convert, convert_tool
from symerge_dense.preparation.convert.packagings import PACKAGINGS, open_split, settings_of

TOOL = Path(__file__).resolve().parents[3] / "tools" / "prepare_data.py"
SIZE = (24, 32)
SETTINGS = settings_of("nyud_mt", size=SIZE)
FOLDERS = ("images", "segmentation", "normals", "depth")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_nyud_mt(tmp_path_factory.mktemp("nyud_mt"), train=(0, 1), val=(2,))


@pytest.fixture
def source(pristine, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "source"))


@pytest.fixture(scope="module")
def prepared(pristine, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "deep" / "nyuv2"
    assert convert("nyud_mt", pristine, out, SETTINGS) == 12
    return out


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.npy")}


def manifest(out):
    return json.loads((out / "manifest.json").read_text("utf-8"))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# -- who writes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("packaging", ["nyud_mt", "mat"])
def test_several_processes_write_the_same_files(packaging, pristine, prepared, tmp_path):
    source = pristine
    if packaging == "mat":
        write_mat(source := tmp_path / "official", count=20, train=range(1, 19))
    settings = settings_of(packaging, size=SIZE)
    one, two = tmp_path / "one", tmp_path / "two"
    with prepared_spawn():
        assert convert(packaging, source, one, settings) == convert(packaging, source, two, settings, jobs=2) > 0
    assert contents(one) == contents(two) and manifest(one)["splits"].keys() == manifest(two)["splits"].keys()
    next((two / "train" / "depth").iterdir()).unlink()
    assert convert(packaging, source, two, settings, jobs=2) == 1 and contents(one) == contents(two)


def test_a_cluster_writes_the_same_files(pristine, prepared, tmp_path, request):
    request.addfinalizer(pytest.importorskip("ray").shutdown)
    assert convert("nyud_mt", pristine, tmp_path / "there", SETTINGS, on="ray") == 12
    assert contents(tmp_path / "there") == contents(prepared)


def test_who_writes_is_asked_for_rightly(pristine, tmp_path):
    with pytest.raises(ValueError, match="--jobs 0: give at least 1"):
        convert("nyud_mt", pristine, tmp_path / "out", SETTINGS, jobs=0)
    with pytest.raises(ValueError, match="--on slurm: give ray"):
        convert("nyud_mt", pristine, tmp_path / "out", SETTINGS, on="slurm")
    assert not (tmp_path / "out").exists()


# -- the manifest -----------------------------------------------------------------------------------------------------
def test_the_manifest_tells_what_was_made_of_what(pristine, prepared):
    found = manifest(prepared)
    assert (found["format"], found["data_set"], found["packaging"]) == (1, "nyuv2", "nyud_mt")
    assert found["source"] == str(pristine)
    assert found["settings"] == {
        "classes": 13,
        "size": [24, 32],
        "crop": "none",
        "normals": "stored",
        "normal_axes": "x,z,y",
    }
    for split, count in (("train", 2), ("val", 1)):
        entry = found["splits"][split]
        assert (entry["count"], entry["frame"], entry["complete"]) == (count, [24, 32], True)
        assert {"python", "numpy", "opencv", "symerge_dense"} <= set(entry["versions"])
        listed = (pristine / f"gt_sets/{split}.txt").read_text().split()
        files = {
            f"gt_sets/{split}.txt",
            *(
                path.relative_to(pristine).as_posix()
                for name in listed
                for folder in FOLDERS
                for path in (pristine / folder).glob(f"{name}.*")
            ),
        }
        assert set(entry["sources"]) == files
        for name, record in entry["sources"].items():
            path = pristine / name
            assert record == {
                "size": path.stat().st_size,
                "mtime_ns": path.stat().st_mtime_ns,
                "sha256": sha256(path.read_bytes()),
            }


def test_it_says_incomplete_until_all_is_there(source, tmp_path):
    image = sorted((source / "images").iterdir())[1]
    whole = image.read_bytes()
    image.write_bytes(whole[:200])
    with pytest.raises(ValueError, match=image.name):
        convert("nyud_mt", source, tmp_path / "out", SETTINGS)
    found = manifest(tmp_path / "out")["splits"]
    assert list(found) == ["train"] and found["train"]["complete"] is False


def test_an_interrupted_conversion_goes_on(pristine, prepared, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(prepared, out)
    found = manifest(out)
    found["splits"]["train"]["complete"] = False
    del found["splits"]["val"]
    (out / "manifest.json").write_text(json.dumps(found))
    shutil.rmtree(out / "val")
    (out / "train/normal/1.npy").unlink()
    assert convert("nyud_mt", pristine, out, SETTINGS) == 5
    assert contents(out) == contents(prepared) and manifest(out) == manifest(prepared)


def test_again_it_does_nothing(pristine, prepared, capsys):
    before = {path: path.stat() for path in prepared.rglob("*") if path.is_file()}
    assert convert("nyud_mt", pristine, prepared, SETTINGS) == 0
    assert "already complete (images: train 2, val 1)" in capsys.readouterr().out
    assert {path: path.stat() for path in prepared.rglob("*") if path.is_file()} == before


def test_a_lost_file_of_a_complete_folder_comes_back(pristine, prepared, tmp_path):
    out = Path(shutil.copytree(prepared, tmp_path / "out"))
    (out / "val/depth/0.npy").unlink()
    assert convert("nyud_mt", pristine, out, SETTINGS) == 1 and contents(out) == contents(prepared)


def test_one_split_then_the_other(pristine, prepared, tmp_path):
    assert convert("nyud_mt", pristine, tmp_path, SETTINGS, ["val"]) == 4
    assert list(manifest(tmp_path)["splits"]) == ["val"] and not (tmp_path / "train").exists()
    assert convert("nyud_mt", pristine, tmp_path, SETTINGS, ["train"]) == 8
    assert manifest(tmp_path)["splits"] == manifest(prepared)["splits"] and contents(tmp_path) == contents(prepared)


def test_too_small_a_disk_is_told_before_anything_is_written(pristine, tmp_path):
    with pytest.raises(ValueError, match=r"out: \d+\.\d\d GB are needed and \d+\.\d\d GB are free; make room"):
        convert("nyud_mt", pristine, tmp_path / "out", settings_of("nyud_mt", size=(10**6, 10**6)))
    assert list(tmp_path.iterdir()) == []


# -- what is not mixed ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "other, told",
    [
        ({"classes": 40}, "classes was 13 and is 40 now"),
        ({"size": (48, 64)}, r"size was \[24, 32\] and is \[48, 64\] now"),
        ({"size": "native"}, r"size was \[24, 32\] and is null now"),
        ({"crop": "eigen"}, 'crop was "none" and is "eigen" now'),
        ({"normals": "depth"}, 'normals was "stored" and is "depth" now'),
        ({"normal_axes": "x,-y,z"}, 'normal_axes was "x,z,y" and is "x,-y,z" now'),
    ],
)
def test_other_settings_are_refused(pristine, prepared, other, told):
    before = contents(prepared), manifest(prepared)
    with pytest.raises(ValueError, match=rf"was made otherwise: .*{told}.*another --out, or remove"):
        convert("nyud_mt", pristine, prepared, settings_of("nyud_mt", **{"size": SIZE, **other}))
    assert (contents(prepared), manifest(prepared)) == before


def test_another_source_is_refused(source, prepared):
    path = sorted((source / "depth").iterdir())[0]
    np.save(path, np.load(path, allow_pickle=False) + 1)
    with pytest.raises(ValueError, match=rf"depth/{path.name} has other contents"):
        convert("nyud_mt", source, prepared, SETTINGS)
    listed = source / "gt_sets/val.txt"
    listed.write_text((source / "gt_sets/train.txt").read_text())
    with pytest.raises(ValueError, match=r"images/\S+ was not a source of val"):
        convert("nyud_mt", source, prepared, SETTINGS, ["val"])


def test_a_source_that_both_splits_share_must_not_change_between_them(pristine, tmp_path):
    convert("nyud_mt", pristine, tmp_path, SETTINGS, ["val"])
    found = manifest(tmp_path)
    name = "gt_sets/train.txt"
    record = {"size": (pristine / name).stat().st_size, "mtime_ns": 0, "sha256": sha256(b"another list")}
    found["splits"]["val"]["sources"][name] = record
    (tmp_path / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=f"{name} has other contents"):
        convert("nyud_mt", pristine, tmp_path, SETTINGS, ["train"])


def test_another_packaging_is_refused(pristine, prepared, tmp_path):
    out = Path(shutil.copytree(prepared, tmp_path / "out"))
    found = manifest(out) | {"packaging": "mat"}
    (out / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match='packaging was "mat" and is "nyud_mt" now'):
        convert("nyud_mt", pristine, out, SETTINGS)


def test_arrays_without_a_manifest_are_refused(pristine, tmp_path):
    (tmp_path / "train/image").mkdir(parents=True)
    (tmp_path / "train/image/7.npy").write_bytes(b"somebody's")
    with pytest.raises(ValueError, match=r"train/image/7\.npy: arrays of unknown origin.*another --out, or remove"):
        convert("nyud_mt", pristine, tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["7.npy"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"splits": []}',
        '{"splits": {"train": 1}}',
        '{"splits": {"train": {"sources": {"a": {}}}}}',
        '{"splits": {"train": {"sources": {"a": {"sha256": 3}}}}}',
        "\udcff\udcfe",
    ],
)
def test_what_is_no_manifest_is_refused(pristine, tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"manifest\.json: not a manifest.*another --out, or remove"):
        convert("nyud_mt", pristine, tmp_path, SETTINGS)


# -- fingerprints -----------------------------------------------------------------------------------------------------
def test_a_file_of_the_recorded_size_and_time_is_not_read_again(source, prepared, tmp_path):
    out = Path(shutil.copytree(prepared, tmp_path / "out"))
    path = source / "gt_sets/train.txt"
    assert convert("nyud_mt", source, out, SETTINGS) == 0  # the copy keeps times
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert convert("nyud_mt", source, out, SETTINGS) == 0  # read again, the same
    assert manifest(out)["splits"]["train"]["sources"]["gt_sets/train.txt"]["mtime_ns"] == stat.st_mtime_ns + 10**9
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(lines)))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert convert("nyud_mt", source, out, SETTINGS) == 0  # a lie that is believed: the price of the shortcut
    os.utime(path)
    with pytest.raises(ValueError, match=r"gt_sets/train\.txt has other contents"):
        convert("nyud_mt", source, out, SETTINGS)


@pytest.fixture
def many(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(prints.FEW + 1):
        (folder / f"{number}.png").write_bytes(bytes([number]) * number)
    (tmp_path / "list.txt").write_bytes(b"x" * (prints.BLOCK + 1))  # more than one block
    return [*folder.iterdir(), tmp_path / "list.txt"]


def test_many_files_of_a_folder_have_one_fingerprint(many, tmp_path):
    found = prints.fingerprints(many, tmp_path)
    assert set(found) == {"list.txt", "images/"}
    pictures = sorted(path for path in many if path.suffix == ".png")
    facts = [[path.name, path.stat().st_size, sha256(path.read_bytes())] for path in pictures]
    assert found["images/"]["files"] == len(pictures)
    assert found["images/"]["size"] == sum(fact[1] for fact in facts)
    assert found["images/"]["sha256"] == sha256(json.dumps(facts).encode())
    assert found["list.txt"]["sha256"] == sha256(b"x" * (prints.BLOCK + 1))


def test_any_change_in_a_folder_is_seen(many, tmp_path):
    first = prints.fingerprints(many, tmp_path)
    assert prints.fingerprints(reversed(many), tmp_path) == first
    (tmp_path / "images/5.png").write_bytes(b"other")
    changed = prints.fingerprints(many, tmp_path, [first])
    assert not prints.same(first["images/"], changed["images/"]) and prints.same(first["list.txt"], changed["list.txt"])
    fewer = prints.fingerprints([path for path in many if path.name != "1.png"], tmp_path, [first])
    assert len(fewer) == prints.FEW + 1 and not set(fewer) & {"images/"}


# -- settings ---------------------------------------------------------------------------------------------------------
def test_defaults():
    assert settings_of("nyud_mt")["size"] == settings_of("nyudv2")["size"] == settings_of("mat")["size"] == [288, 384]
    assert settings_of("parquet") == {"classes": 13, "size": None}
    assert settings_of("mat", size="native", crop="eigen")["size"] is None
    assert settings_of("mat", crop="none") == settings_of("mat")


@pytest.mark.parametrize(
    "packaging, option",
    [("parquet", "crop"), ("parquet", "normals"), ("parquet", "normal_axes"), ("mat", "normal_axes")],
)
def test_an_option_that_a_packaging_does_not_have_is_refused(packaging, option):
    with pytest.raises(ValueError, match=f"packaging '{packaging}' has no option '{option}'; leave it out"):
        settings_of(packaging, **{option: "none"})


def test_an_unknown_packaging_is_refused():
    with pytest.raises(ValueError, match=r"unknown packaging 'matt'\. Did you mean 'mat'"):
        settings_of("matt")
    assert list(PACKAGINGS) == ["mat", "parquet", "nyud_mt", "nyudv2"]


def test_values_are_refused_by_their_owner(pristine, tmp_path):
    with pytest.raises(ValueError, match="crop='left'"):
        open_split("nyud_mt", pristine, "train", settings_of("nyud_mt", crop="left"))
    with pytest.raises(ValueError, match="size="):
        open_split("nyud_mt", pristine, "train", settings_of("nyud_mt", size=(0, 5)))
    with pytest.raises(ValueError, match=r"split='test'"):
        convert("nyud_mt", pristine, tmp_path, SETTINGS, ["test"])
    assert list(tmp_path.iterdir()) == []


def test_parquet_has_13_classes_only(tmp_path):
    write_parquet(
        tmp_path,
        {
            "train": [
                {
                    "image": np.zeros((3, 4, 4)),
                    "segmentation": np.zeros((4, 4), np.int64),
                    "depth": np.ones((1, 4, 4)),
                    "normal": np.zeros((3, 4, 4)),
                }
            ]
        },
        shards=1,
    )
    with pytest.raises(ValueError, match="40 classes"):
        convert("parquet", tmp_path, tmp_path / "out", settings_of("parquet", classes=40), ["train"])


# -- the tool ---------------------------------------------------------------------------------------------------------
def test_the_tool_converts(pristine, prepared, tmp_path):
    words = ["nyuv2", "--from", "nyud_mt", str(pristine), "--out", str(tmp_path), "--size", "24", "32"]
    assert tool("prepare_data.py", *words, "--crop", "none") == 0
    assert contents(tmp_path) == contents(prepared) and manifest(tmp_path) == manifest(prepared)


def test_the_tool_keeps_the_native_size(pristine, tmp_path):
    words = ["nyuv2", "--from", "nyud_mt", str(pristine), "--out", str(tmp_path), "--size", "native"]
    assert tool("prepare_data.py", *words, "--splits", "val") == 0
    assert manifest(tmp_path)["splits"]["val"]["frame"] == [480, 640]
    assert np.load(tmp_path / "val/depth/0.npy", allow_pickle=False).shape == (480, 640, 1)


@pytest.mark.parametrize("sides", [["288"], ["1", "2", "3"], ["-1", "5"], ["2.5", "5"], ["native", "5"], ["stored"]])
def test_a_size_is_two_numbers_or_native(pristine, sides, capsys):
    assert tool("prepare_data.py", "nyuv2", "--from", "nyud_mt", str(pristine), "--size", *sides) == 2
    assert f"--size {' '.join(sides)}: give height and width in pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [{"crop": "eigen"}, {"size": ["24", "32"]}, {"normals": "depth"}, {"out": "x"}, {"splits": ["val"]}]
)
def test_the_layout_itself_is_not_converted(prepared, option):
    with pytest.raises(ValueError, match=rf"packaging 'npy' has no option '{next(iter(option))}'"):
        convert_tool(str(prepared), "npy", **option)


def test_ctrl_c_is_told_and_the_same_command_goes_on(pristine, prepared, tmp_path, monkeypatch, capsys):
    words = ["nyuv2", "--from", "nyud_mt", str(pristine), "--out", str(tmp_path), "--size", "24", "32"]
    save, calls = np.save, []

    def five_files_then_ctrl_c(*arguments, **options):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(save(*arguments, **options))

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", five_files_then_ctrl_c)
        assert tool("prepare_data.py", *words) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on\n"
    assert len(contents(tmp_path)) == 5 and manifest(tmp_path)["splits"]["train"]["complete"] is False
    assert tool("prepare_data.py", *words) == 0
    assert contents(tmp_path) == contents(prepared) and manifest(tmp_path) == manifest(prepared)


def test_the_layout_itself_is_checked(prepared, tmp_path, capsys):
    out = Path(shutil.copytree(prepared, tmp_path / "out"))
    before = contents(out)
    assert tool("prepare_data.py", "nyuv2", "--from", "npy", str(out)) == 0
    assert f"use it in place, root='{out}'" in capsys.readouterr().out
    assert contents(out) == before
    (out / "val/depth/0.npy").write_bytes(b"")
    for words in (["nyuv2", "--from", "npy", str(out)], ["check", str(out)]):
        assert tool("prepare_data.py", *words) == 1
        printed = capsys.readouterr().out
        assert "val/depth" in printed and "in place" not in printed


def test_a_user_error_is_one_message_and_exit_code_2(tmp_path):
    command = [sys.executable, str(TOOL), "nyuv2", "--from", "nyud_mt", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "gt_sets/train.txt" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
