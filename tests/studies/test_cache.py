"""Results are kept by content; what is damaged or of another version is set aside and made anew."""

import json
import math

import pytest

from symerge_dense.studies.frame import cache as module
from symerge_dense.studies.frame.cache import RunCache

ASKED = {"run": {"method": "symerge"}, "seed": 0}


@pytest.fixture
def cache(tmp_path):
    return RunCache(tmp_path / "cache")


def test_a_result_is_made_once_and_read_as_it_was_made(cache):
    made = []

    def make():
        made.append(1)
        return {"delta_m": -1.5, "depth/abs": math.nan}

    for _ in range(2):
        found = cache.fetch("method", ASKED, make)
        assert found["delta_m"] == -1.5 and math.isnan(found["depth/abs"])
    assert made == [1]
    assert cache.read("method", {**ASKED, "seed": 1}) is None and cache.read("other", ASKED) is None
    assert not [path for path in cache.file("method", ASKED).parent.iterdir() if path.suffix != ".json"]


@pytest.mark.parametrize("text", ['{"version": 1, "numb', "[]", '{"version": 1, "numbers": 3}', "\x00"])
def test_a_half_written_file_is_set_aside_with_a_message(cache, capsys, text):
    cache.write("method", ASKED, {"delta_m": 1.0}, {})
    path = cache.file("method", ASKED)
    path.write_text(text)
    assert cache.read("method", ASKED) is None
    assert "damaged" in capsys.readouterr().out and path.with_name(f"{path.name}.old").read_text() == text
    assert cache.fetch("method", ASKED, lambda: {"delta_m": 2.0}) == {"delta_m": 2.0}


def test_a_file_of_another_version_is_set_aside_and_kept(cache, capsys, monkeypatch):
    cache.write("method", ASKED, {"delta_m": 1.0}, {})
    monkeypatch.setattr(module, "CACHE_VERSION", module.CACHE_VERSION + 1)
    assert cache.read("method", ASKED) is None
    assert "version 1" in capsys.readouterr().out
    aside = cache.file("method", ASKED).with_name(f"{cache.file('method', ASKED).name}.old")
    assert json.loads(aside.read_text())["numbers"] == {"delta_m": 1.0}


def test_what_fails_keeps_nothing(cache):
    def fail():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        cache.fetch("method", ASKED, fail)
    assert cache.read("method", ASKED) is None
