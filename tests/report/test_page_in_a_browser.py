"""The page in a real browser: quiet, within its width, readable, sorted and moved by mouse, finger and keyboard."""

import os
import re
import shutil

import pytest
from builders.run_records import comparison, record, run_folder, with_extras, write

from symerge_dense.report.page.document import write_page
from symerge_dense.report.records import read_records

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium is installed; apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page of two seeds, another config, and a comparison with a name that looks like a script."""
    home = tmp_path_factory.mktemp("page")
    folders = [run_folder(home / f"seed{seed}", with_extras(record(seed, float(seed)))) for seed in (0, 1)]
    longer = {"adaptation": {"rounds": 1000, "options": "a long text that no line of a phone could hold in one piece"}}
    folders.append(run_folder(home / "longer", with_extras(record(0, -3.0, **longer))))
    compared = comparison()
    compared["rows"][2]["method"] = "<script>document.title = 'run'</script>"
    folders.append(write(home / "compared", "compare.json", compared))
    write_page(home / "report.html", read_records(folders), "Report")
    return home / "report.html"


@pytest.fixture(scope="module")
def browser():
    options = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield running
        running.close()


@pytest.fixture
def look(browser, file):
    """Opens the page with a context of one's own; afterwards nothing was complained of, and nothing fetched."""
    heard, contexts = [], []

    def opened(width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url) if not request.url.startswith("data:") else None)
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert set(heard) == {file.as_uri()}


def column(page, heading, table=0):
    """Numbers and aria-sort of a column of a table, as they stand."""
    return page.evaluate(
        """([heading, table]) => {
            const box = document.querySelectorAll("table")[table];
            const head = [...box.querySelectorAll("th[aria-sort]")].find((th) => th.textContent.startsWith(heading));
            const place = [...head.parentElement.children].indexOf(head);
            const rows = [...box.querySelector("tbody.sorted").rows];
            return [rows.map((row) => Number(row.children[place].dataset.v)), head.ariaSort];
        }""",
        [heading, table],
    )


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_quietly_and_keeps_its_width(look, width, scheme):
    page = look(width, color_scheme=scheme)
    assert page.title() == "Report"
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert page.get_by_text("<script>document.title = 'run'</script>").count() > 0
    broken = "[...document.images].filter((image) => !image.hidden && !image.naturalWidth).length"
    assert page.evaluate(broken) == 0 < page.evaluate("document.images.length")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_paper(look, scheme):
    """WCAG's AA: 4.5 to 1 for text, 3 to 1 for the lines and bars of drawings."""
    page = look(color_scheme=scheme)
    names = ["ink", "quiet", "accent", *(f"c{place}" for place in range(10))]
    read = "(names) => names.map((name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name))"
    paper, faint, *colours = map(luminance, page.evaluate(read, ["paper", "faint", *names]))
    for name, colour in zip(names, colours, strict=True):
        for ground in (paper, faint):
            low, high = sorted((ground, colour))
            assert (high + 0.05) / (low + 0.05) >= (3 if re.fullmatch(r"c\d", name) else 4.5), name


def luminance(colour):
    digits = colour.strip().lstrip("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_click_sorts_best_first_and_another_turns_it_round(look):
    page = look()
    before, order = column(page, "mIoU")
    assert order == "none" and before != sorted(before)
    heading = page.get_by_role("button", name="mIoU").first
    heading.click()
    assert column(page, "mIoU") == [sorted(before, reverse=True), "descending"]
    heading.click()
    assert column(page, "mIoU") == [sorted(before), "ascending"]
    page.get_by_role("button", name="abs").first.click()  # lower is better
    values, order = column(page, "abs")
    assert values == sorted(values) and order == "ascending" and column(page, "mIoU")[1] == "none"
    assert page.locator("tbody.reference").first.locator("th").first.inner_text() == "experts"


def test_the_keyboard_sorts_too_and_text_goes_by_the_alphabet(look):
    page = look(390, has_touch=True)
    page.get_by_role("button", name="model").first.focus()
    page.keyboard.press("Enter")
    names = page.locator("table").first.locator("tbody.sorted th").all_inner_texts()
    assert names == sorted(names, key=str.lower) and len(set(names)) == 4
    page.keyboard.press("Space")
    again = page.locator("table").first.locator("tbody.sorted th").all_inner_texts()
    assert again == sorted(names, key=str.lower, reverse=True)


def shown_at(page, share):
    """Grey level of the first slider's picture at a share of its width, as it is on the screen."""
    stage = page.locator(".slider").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    shot = page.screenshot(clip={"x": box["x"] + share * box["width"], "y": box["y"] + 4, "width": 1, "height": 1})
    return page.evaluate(
        """async (data) => {
            const image = await createImageBitmap(new Blob([new Uint8Array(data)]));
            const canvas = new OffscreenCanvas(1, 1).getContext("2d");
            canvas.drawImage(image, 0, 0);
            return canvas.getImageData(0, 0, 1, 1).data[0];
        }""",
        list(shot),
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_the_slider_moves_by_pointer_and_by_keyboard(look, width):
    page = look(width, has_touch=True)
    slider = page.locator(".slider input").first
    expert, merged = 90, 220
    assert abs(shown_at(page, 0.3) - expert) < 4 and abs(shown_at(page, 0.7) - merged) < 4
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 8, steps=5)
    page.mouse.up()
    assert abs(float(slider.input_value()) - 90) <= 2 and abs(shown_at(page, 0.7) - expert) < 4
    page.touchscreen.tap(box["x"] + 0.2 * box["width"], box["y"] + 8)
    assert abs(float(slider.input_value()) - 20) <= 2 and abs(shown_at(page, 0.3) - merged) < 4
    slider.focus()
    page.keyboard.press("End")
    assert slider.input_value() == "100" and abs(shown_at(page, 0.9) - expert) < 4
    page.keyboard.press("ArrowLeft")
    assert slider.input_value() == "99"


def test_the_other_side_of_the_line_is_chosen_for_all_pictures(look):
    page = look()
    page.get_by_role("radio", name="truth").first.check()
    assert abs(shown_at(page, 0.3) - 40) < 4 and abs(shown_at(page, 0.7) - 220) < 4
    first = page.locator(".pictures").first
    assert set(first.locator(".left").all_inner_texts()) == {"truth"}
    label = first.locator(".slider input").first.get_attribute("aria-label")
    assert label == "segmentation of image 1: place of the line, truth at its left, SyMerge at its right"


def test_the_map_reads_out_its_values(look):
    page = look()
    cells, readout = page.locator(".cells").first, page.locator(".readout").first
    cells.scroll_into_view_if_needed()
    box = cells.bounding_box()
    page.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + 5)  # the fourth of six layers
    assert readout.inner_text() == "layer1.1: segmentation 0.300, depth 0.500, normals 1.000"
    page.locator(".map").first.focus()
    page.keyboard.press("ArrowRight")
    assert readout.inner_text().startswith("layer2.0: segmentation 0.400")
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    assert readout.inner_text().startswith("layer2.1")


def test_without_scripts_it_can_still_be_read(look):
    page = look(java_script_enabled=False)
    assert page.get_by_text("49.50").count() > 0 and page.locator(".slider img").first.is_visible()


def test_it_prints_without_what_only_a_screen_needs(look, tmp_path):
    page = look()
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible() and page.locator("table").first.is_visible()
    page.pdf(path=tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").stat().st_size > 10_000
