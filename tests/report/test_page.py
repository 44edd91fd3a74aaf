"""The page as text: everything is in it, everything from records is escaped, and older records lose nothing else."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from builders.pipeline_tiny import tool
from builders.run_records import comparison, record, run_folder, unlabelled, with_extras, write
from PIL import Image

from symerge_dense.report.page import pictures
from symerge_dense.report.page.document import page
from symerge_dense.report.page.markup import Markup, svg, tag
from symerge_dense.report.records import read_records

EVIL = "<script>alert('x')</script>"


class Reader(HTMLParser):
    """Text of the table cells and headings, elements by name, and whether all are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.names, self.cells, self.ids, self.sources = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, name, attributes):
        given = dict(attributes)
        self.names.append(name)
        self.ids += [given["id"]] if "id" in given else []
        self.sources += [given[key] for key in ("src", "href") if key in given]
        if name not in ("meta", "img", "input", "br"):
            self.open.append(name)
        if name in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if {"td", "th"} & set(self.open):
            self.cells[-1] += text


@pytest.fixture
def runs(tmp_path):
    """Folders of two seeds of one config, and a comparison."""
    found = [run_folder(tmp_path / f"seed{seed}", with_extras(record(seed, float(seed)))) for seed in (0, 1)]
    return [*found, write(tmp_path / "compared", "compare.json", comparison())]


def test_every_part_is_there(runs):
    text = page(read_records(runs), "Three & more")
    found = Reader(text)
    assert "<title>Three &amp; more</title>" in text and "2 runs, 1 comparison" in text
    sections = ["results", "comparison", "pictures", "classes", "coefficients", "curves", "costs", "about"]
    assert [name for name in found.ids if not re.fullmatch("t[0-9a-f]{12}", name)] == sections
    for cell in ("SyMerge", "ties", "wall", "layer2.1", "seed0"):
        assert any(cell in shown for shown in found.cells), cell
    assert "49.50\N{NO-BREAK SPACE}±0.71" in found.cells
    assert "Δm \N{MINUS SIGN}1.00 %" in text  # seeds that agree have no spread
    assert found.names.count("polyline") == 2 * 2 * 3  # seeds, figures, tasks
    assert "abs\N{NO-BREAK SPACE}m\N{NO-BREAK SPACE}↓" in found.cells and "0.5<svg" in text and "4.25 m" in text
    assert "emr failed: RuntimeError: no" in text
    config = {"adaptation": {"rounds": 5}}
    other = with_extras(record(0, **config))
    folders = [*runs, write(runs[0].parent / "other", "results.json", other)]
    more = Reader(page(read_records(folders)))
    assert "differences" in more.ids and "adaptation.rounds" in more.cells and "not set" in more.cells


def test_the_best_merged_number_is_marked_and_the_experts_stay_apart(runs):
    text = page(read_records(runs[:1]))
    (head,) = re.findall(r'<tbody class="reference">(.*?)</tbody>', text)
    assert "experts" in head and "<strong>" not in head
    row = next(row for row in re.findall("<tr>.*?</tr>", text) if "SyMerge" in row and "49.00" in row)
    assert "<strong>49.00</strong>" in row and "<strong>0.4200</strong>" in row  # higher and lower are better


def test_nothing_is_asked_of_a_network_and_only_the_pages_own_script_may_run(runs):
    text = page(read_records(runs))
    assert all(source.startswith(("data:image/webp", "#")) for source in Reader(text).sources)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|https?://", text)
    (policy,) = re.findall('Content-Security-Policy" content="(.*?)"', text)
    for name in ("style", "script"):
        (own,) = re.findall(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{name}-src &#x27;sha256-{digest}&#x27;" in policy
    assert "default-src &#x27;none&#x27;" in policy and "unsafe" not in policy and not re.search(r"<[^>]* style=", text)


def test_what_comes_from_records_is_text(tmp_path):
    run = with_extras(record())
    for row in ("experts", "average", "task_arithmetic", "initial", "merged"):
        run[row]["tasks"] = {EVIL if task == "depth" else task: of for task, of in run[row]["tasks"].items()}
    run["config"] |= {"name": f'"{EVIL}', "tasks": {"segmentation": {}, EVIL: {}, "normals": {}}}
    run |= {"device": EVIL, "commit": EVIL, "versions": {EVIL: EVIL}, "plugins": {"task x": EVIL}}
    run["coefficients"] = {f"a.{EVIL}": [1, 1, 1], "a.b": [0, 0, 0]}
    other = comparison()
    other["rows"][2] |= {"method": EVIL, "note": EVIL}
    other["blocks"]["static"] = EVIL
    folders = [run_folder(tmp_path / "run", run), write(tmp_path / "compared", "compare.json", other)]
    text = page(read_records(folders), EVIL)
    assert Reader(text).names.count("script") == 1 and "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") > 20


def test_spans_of_finer_coefficients_stand_beside_their_means(tmp_path):
    runs = [with_extras(record(seed)) for seed in (0, 1)]
    first, second, *_ = runs[0]["coefficients"]
    for run, low in zip(runs, (-0.25, 0.0), strict=True):
        run["coefficient_ranges"] = {first: [[low, 0.5], [0.0, 1.0], [0.1, 2.0]], second: [[None, 1.0]] * 3}
    folders = [run_folder(tmp_path / str(seed), run) for seed, run in enumerate(runs)]
    text = page(read_records(folders))
    assert "lowest to highest" in text and "\N{MINUS SIGN}0.250 to 0.500" in text and "0.100 to 2.000" in text
    assert "means of their coefficients" in text and "None" not in text
    assert "lowest to highest" not in page(read_records([run_folder(tmp_path / "plain", with_extras(record()))]))


def test_a_picture_outside_the_run_is_not_read(tmp_path, capsys):
    run = with_extras(record())
    folder = run_folder(tmp_path / "run", run)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    for path in ("../secret.png", str(tmp_path / "secret.png"), "panels/missing.png", "results.json", 7):
        run["panels"][0]["image"] = path
        write(folder, "results.json", run)
        text = page(read_records([folder]))
        assert "no single pictures" in text and "data:image" not in text
    assert "lies outside the folder of the run" in capsys.readouterr().err
    run["panels"][0] |= {"image": "panels/image.png", "legends": {"depth": {"names": 3}}}
    assert "no single pictures" in page(read_records([write(folder, "results.json", run)]))


def test_one_picture_a_task_is_nothing_to_slide(tmp_path):
    run = with_extras(record())
    folder = run_folder(tmp_path / "run", run)
    for tasks in ({}, {"depth": {"merged": "panels/merged.png"}}, {"depth": {"expert": "panels/expert.png"}}):
        run["panels"][0]["tasks"] = tasks
        text = page(read_records([write(folder, "results.json", run)]))
        assert "no single pictures" in text and "data:image" not in text


def test_runs_of_earlier_versions_have_all_but_what_they_did_not_record(tmp_path):
    old = record()
    folder = write(tmp_path / "old", "results.json", old)
    (folder / "panels.png").write_bytes(b"")
    text = page(read_records([folder]))
    assert "panels.png shows them all" in text
    assert [name for name in Reader(text).ids if len(name) != 13] == ["results", "pictures", "costs", "about"]


def test_numbers_measured_otherwise_stand_in_tables_of_their_own(tmp_path):
    data = [{"test": {"type": "a.Rooms", "split": split}} for split in ("val", "test")]
    folders = [write(tmp_path / str(place), "results.json", record(data=one)) for place, one in enumerate(data)]
    text = page(read_records(folders))
    assert "Rooms, val; protocol default" in text and "Rooms, test; protocol default" in text
    assert text.count('<tbody class="reference">') == 2


def test_runs_without_labels_are_never_mixed_with_labelled_ones(tmp_path, runs, capsys):
    folder = run_folder(tmp_path / "photos", unlabelled(name="photos"))
    text = page(read_records([*runs, folder]))
    (part,) = re.findall('<section id="agreement".*?</section>', text)
    assert "7 held-out images. No label was read: this is no accuracy." in part and "Δm" not in part
    assert "photos" in part and "nyuv2" not in part
    (labelled,) = re.findall('<section id="results".*?</section>', text)
    assert "photos" not in labelled
    (pictures_of,) = re.findall('<section id="pictures".*?</section>', text)
    assert "<h3>photos</h3>" in pictures_of
    assert next(name for name in Reader(page(read_records([folder]))).ids if len(name) != 13) == "agreement"
    assert tool("report.py", "table", folder, runs[0]) == 0
    printed = capsys.readouterr().out
    assert "**photos**, seed 0: agreement with the experts on 7 held-out images. No label was read" in printed
    assert tool("report.py", "table", folder, "--paper", "nyuv2-symerge") == 2
    assert "was measured without labels" in capsys.readouterr().err


def test_pictures_keep_to_their_room_and_every_run_shows_one(tmp_path, monkeypatch):
    """A page must stay small enough to send."""
    folders = []
    for place in range(2):
        run = with_extras(record(place, **{"adaptation": {"rounds": place}}))
        folder = run_folder(tmp_path / str(place), run)
        for path in (folder / "panels").iterdir():
            Image.effect_noise((96, 64), 40).convert("RGB").save(path)  # nothing compresses worse
        run["panels"] *= 4
        folders.append(write(folder, "results.json", run))
    all_of_it = page(read_records(folders))
    assert all_of_it.count('class="scene"') == 8 and len(all_of_it) < 3e6
    monkeypatch.setattr(pictures, "ROOM", len(all_of_it) // 2)
    fewer = page(read_records(folders))
    assert 2 <= fewer.count('class="scene"') < 8
    monkeypatch.setattr(pictures, "ROOM", 1)
    assert page(read_records(folders)).count('class="scene"') == 2


def test_the_tool_writes_the_page_and_says_where(runs, tmp_path, capsys):
    out = tmp_path / "out" / "report.html"
    assert tool("report.py", "page", *runs, "--out", out, "--title", "Mine") == 0
    assert "MB; open it in a browser" in capsys.readouterr().out and "<h1>Mine</h1>" in out.read_text()
    assert tool("report.py", "page", *runs, "--out", tmp_path / "report.pdf") == 2
    assert "ends in .html" in capsys.readouterr().err
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "run.json").write_text("{}")
    assert tool("report.py", "page", tmp_path / "unfinished") == 2
    assert "none of these runs is finished" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "{", '{"rows": [1]}', '{"config": {}, "blocks": {}, "rows": [{}]}'])
def test_a_broken_comparison_is_named(tmp_path, content, capsys):
    (tmp_path / "compare.json").write_text(content)
    assert tool("report.py", "page", tmp_path) == 2
    assert f"{tmp_path / 'compare.json'}" in capsys.readouterr().err


def test_markup_escapes_text_and_attributes():
    made = tag("p", "<b>", ["&", None, 3], title='"<', hidden=True, lang=None)
    assert made == '<p title="&quot;&lt;" hidden>&lt;b&gt;&amp;3</p>'
    assert tag("p", Markup("<b>")) == "<p><b></p>" and tag("br") == "<br>"
    assert 'role="img"' in svg(label="a") and 'aria-hidden="true"' in svg()
