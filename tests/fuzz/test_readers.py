"""A short part of `make fuzz`: every reader on damaged files, always the same, and on files that once broke one."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from fuzz.campaign import READERS, Trial
from fuzz.formats import STRATEGIES
from symerge_dense.commands.cli import complain
from symerge_dense.progress import say

GOOD = ("read", "refused")
OTHERS = (b"", b"\x00", b"{", b"<html>", b"PK\x05\x06" + bytes(18))  # no files of any kind
BY_NAME = {reader.name: reader for reader in READERS}


def trial(name, folder):
    return Trial(BY_NAME[name], folder.resolve())


def inputs(reader):
    """How many of a reader's inputs stand in the suite: fewer of slow ones."""
    return max(3, round(20 * min(reader.share, 1)))


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files_are_read_or_refused(reader, tmp_path):
    attempt = Trial(reader, tmp_path.resolve())
    verdicts = []

    @seeded(1)
    @settings(
        max_examples=inputs(reader),
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(STRATEGIES[reader.format])
    def check(damage):
        verdicts.append(attempt(damage(attempt.files)))
        assert verdicts[-1] in GOOD

    check()
    assert len(verdicts) >= inputs(reader)
    for content in OTHERS:
        assert attempt(content) in GOOD, content
    attempt.target.unlink(missing_ok=True)  # some are set aside
    for make in (lambda path: os.symlink(path.name, path), os.mkdir):  # a link to itself, and a folder
        make(attempt.target)
        try:
            reader.read(attempt.target)
        except (ValueError, OSError) as error:  # commands turn both into a message
            assert str(tmp_path) in str(error)
        if attempt.target.is_symlink():
            attempt.target.unlink()
        elif attempt.target.exists():
            attempt.target.rmdir()


def header(text):
    raw = text.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw


LARGE = header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }")
ARRAYS = {
    "more numbers than the file has": LARGE,
    "a length that no machine counts": header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9" + 30 * "9" + ",), }"
    ),
    "a header that is not closed": header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 6)"),
    "a shape of truth values": header("{'descr': '<f4', 'fortran_order': False, 'shape': (True, False), }"),
    "a call in the header": header(
        "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (4,), }"
    ),
    "pickled objects": header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"\x80\x04N.",
}


@pytest.mark.parametrize("content", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("name", ["prepared .npy", "label .npy", "frames of rooms", "cached labels"])
def test_arrays_that_say_what_is_not_so(name, content, tmp_path):
    assert trial(name, tmp_path)(content) == "refused"


def test_an_array_that_says_so_in_an_archive(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("label.npy", LARGE)
    assert trial("label .npz", tmp_path)(stream.getvalue()) == "refused"


def test_a_label_of_more_bytes_than_memory(tmp_path):
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset("label", (10**6, 10**6), np.float32, chunks=(64, 64))
    content = (tmp_path / "large.h5").read_bytes()
    assert len(content) < 10_000 and trial("label .h5", tmp_path)(content) == "refused"


RECORDS = [name for name, reader in BY_NAME.items() if reader.format == "json" and name != "index of shards"]
DEEP = {"closed": "[" * 900 + "]" * 900, "open": '{"a":' * 100_000, "a number": "9" * 5000}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
@pytest.mark.parametrize("name", RECORDS)
def test_deep_json_and_long_numbers(name, text, tmp_path):
    attempt = trial(name, tmp_path)
    assert attempt(text.encode()) in GOOD
    tree = json.loads(attempt.files[0])
    tree[next(iter(tree))] = "\x00here"
    assert attempt(json.dumps(tree).replace('"\\u0000here"', text).encode()) in GOOD


def members(*infos):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return stream.getvalue()


def member(name, kind=tarfile.REGTYPE, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


FOLDERS = [member(f"normals_gt/{part}", tarfile.DIRTYPE) for part in ("normals", "masks")]
ATTACKS = {
    "above": member("normals_gt/../../../escaped", size=3),
    "absolute": member("/tmp/fuzz-escaped", size=3),
    "link": member("normals_gt/normals/0001.png", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": member("normals_gt/normals/0001.png", tarfile.LNKTYPE, "/etc/passwd"),
    "device": member("normals_gt/normals/0001.png", tarfile.CHRTYPE),
    "pipe": member("normals_gt/normals/0001.png", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_archives_that_lead_elsewhere(attack, tmp_path):
    attempt = trial("normals_gt.tgz", tmp_path)
    stripped = attack.name.startswith("/")  # such a name is taken as one below the folder
    assert attempt(members(*FOLDERS, attack)) == ("read" if stripped else "refused")
    assert [path.name for path in tmp_path.rglob("*") if "normals" in path.name] == ["normals_gt.tgz", "normals_gt.tgz"]
    assert not list(tmp_path.parent.glob("**/*escaped")) and not Path("/tmp/fuzz-escaped").exists()


def test_an_archive_that_unpacks_to_more_than_the_disk(tmp_path):
    """Its list of contents says so: 16 GB of zeros, in a header of 512 bytes."""
    info = member("normals_gt/normals/0001.png", size=16 << 30)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for folder in FOLDERS:
            archive.addfile(folder)
        archive.fileobj.write(info.tobuf())
    assert trial("normals_gt.tgz", tmp_path)(stream.getvalue()) == "refused"


def test_an_index_of_some_of_its_shards_is_half_a_network(tmp_path):
    attempt = trial("index of shards", tmp_path)
    index = json.loads(attempt.files[0])
    index["weight_map"].pop("count")
    assert attempt(json.dumps(index).encode()) == "refused"


@pytest.mark.parametrize(
    "name", ["label .png, its bytes", "class map, its bytes", "picture of a listed set, its bytes"]
)
def test_pictures_whose_checksum_is_wrong(name, tmp_path):
    """Pillow decodes grey and palette pictures whether it is right or not."""
    attempt = trial(name, tmp_path)
    for content in attempt.files:
        assert attempt(content[:-13] + bytes([content[-13] ^ 1]) + content[-12:]) == "refused"


def test_an_archive_whose_checksum_is_wrong(tmp_path):
    """It stands behind the last member, where nobody looks who has all members."""
    attempt = trial("normals_gt.tgz, its bytes", tmp_path)
    assert attempt(attempt.files[0][:-5] + b"\x55" + attempt.files[0][-4:]) == "refused"


def test_a_checkpoint_with_a_nameless_entry(tmp_path):
    attempt = trial("checkpoint .pth", tmp_path)
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(attempt.files[2])) as source, zipfile.ZipFile(stream, "w") as target:
        for entry in source.namelist():
            target.writestr(zipfile.ZipInfo("\x00" if entry.endswith("version") else entry), source.read(entry))
    assert attempt(stream.getvalue()) == "refused"


def test_a_length_that_no_memory_has(tmp_path):
    """Of a text in a checkpoint of before PyTorch 1.6."""
    attempt = trial("checkpoint before PyTorch 1.6", tmp_path)
    content = attempt.files[0].replace(b"X\x0b\x00\x00\x00conv.weight", b"X\xff\xff\xff\x7fconv.weight")
    assert content != attempt.files[0] and attempt(content) == "refused"


def test_a_picture_of_very_many_pixels(tmp_path):
    attempt = trial("photo", tmp_path)
    content = attempt.files[0]
    sides = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    assert attempt(content[:16] + sides + content[24:]) == "refused"


def test_names_of_files_move_no_cursor(capsys):
    say("a \x1b[2J b\x9b31m\u202e c\nd")
    say("e\x07f", aside=True)
    complain("g\x1b]0;owned\x07h")
    out = capsys.readouterr()
    assert out.out == "a \\x1b[2J b\\x9b31m\\u202e c\nd\n"
    assert out.err == "e\\x07f\ng\\x1b]0;owned\\x07h\n"


def test_tables_move_no_cursor(tmp_path):
    attempt = trial("results.json, tables", tmp_path)
    text = attempt.files[0].decode().replace("segmentation", "seg\\u001b[2J")
    attempt.target.write_text(text)
    table = attempt.reader.read(attempt.target)
    assert "seg\\x1b[2J" in table and "\x1b" not in table


def test_the_harness_finds_what_it_looks_for(tmp_path):
    """A reader that crashes, one that starts a program, one that asks for too much memory, and a wrong result."""
    make = BY_NAME["class map"].make
    faults = {
        "ZeroDivisionError at": lambda path: 1 // (len(path.read_bytes()) - 3),
        "does more than read: os.system": lambda path: os.system("true") if path.stat().st_size == 3 else 0,
        "does more than read: writes": lambda path: (
            open(tmp_path / "x", "w").close() if path.stat().st_size == 3 else 0
        ),
        "MemoryError at": lambda path: np.ones(2 << 27) if path.stat().st_size == 3 else 0,
        "a wrong result": lambda path: path.stat().st_size,
    }
    for number, (told, read) in enumerate(faults.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        reader = type(BY_NAME["class map"])("planted", "bytes", make, read, known=lambda found: found)
        assert Trial(reader, folder)(b"123").startswith(told)
