"""The report in a real browser, outside the usual run:

    apt install chromium; pip install -e '.[test,page]'; python -m pytest -m slow tests/test_page.py --basetemp=DIR

leaves its screenshots below DIR.
"""

import json
import re
import shutil

import pytest
from recipes import tiny
from test_benchmark import DIGITS, SMALL, data_of_several

import labelfx
from labelfx.benchmark import benchmark
from labelfx.reports.page import report

pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AUGMENT = {"name": "crop_flip", "padding": 1, "flip": False}
WIDTHS = {"desk": 1200, "phone": 390}
SMALL_TEXT = """[...document.querySelectorAll('body *')].filter(e => !['TITLE', 'STYLE'].includes(e.tagName) &&
    e.getClientRects().length && [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim())).map(e => {
    const svg = e.ownerSVGElement, scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1
    return [scale * parseFloat(getComputedStyle(e).fontSize), e.textContent]}).filter(([size]) => size < 13)"""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[page]'")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as player:
        yield player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    methods, every_step = ["hard_negative", "distillation", "fixmatch"], SMALL | {"log_every": 1}
    sweep = benchmark(DIGITS, methods, (1, 4, 25), range(2), folder / "sweep", every_step)
    labelfx.train(tiny("supervised", evals={"head": {}, "score_distribution": {"augment": AUGMENT}}), folder / "run")
    several = data_of_several(folder)
    changes = {
        "model.hidden": (4,),
        "batch.unlabelled": 16,
        "method.projector.hidden": (),
        "log_every": 1,
        "devices": 1,
    }
    changes |= {"steps": 3, "optimizer.schedule.warmup_steps": 0}
    kinds = ["keep_entries:0.5", "keep_entries:1"]
    told = benchmark(several, ["hard_negative"], (10, 20), range(2), folder / "several", changes, weak=kinds)
    return {"sweep": sweep, "run": report([folder / "run"], folder / "run.html"), "several": told}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["sweep", "run", "several"])
def test_in_a_browser(name, width, browser, pages, tmp_path):
    path = pages[name]
    assert path.stat().st_size < 1.5e6
    page = browser.new_page(viewport={"width": WIDTHS[width], "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    first, second = page.locator("body > *").all_inner_texts()[:2]
    assert first.endswith({"sweep": "on digits", "run": "on digits, 20 labels", "several": "on multilabel:yeast"}[name])
    assert re.match(
        r"With \d+ label\w*( rows, keep_entries 0.5)?: (undecided: |supervised, head )", second
    ) and second.endswith(".")
    page.screenshot(path=tmp_path / f"{name}_{width}.png", full_page=True)
    assert not said and [url for url in asked if not url.startswith("data:")] == [path.as_uri()]

    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    wide = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => [e.tagName, e.textContent])"
    )
    assert not wide and page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]  # nothing to push aside
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure svg, .shot img')]"
        ".filter(e => e.getClientRects().length).map(e => [e.getBoundingClientRect(), e])"
        ".map(([box, e]) => [box.width, box.height, e.naturalWidth || e.querySelectorAll('*').length])"
    )
    assert len(boxes) >= {"sweep": 8, "run": 40, "several": 8}[name]
    assert not [(w, h, parts) for w, h, parts in boxes if w <= 30 or h <= 20 or not parts]
    small = page.evaluate(SMALL_TEXT)
    assert not small
    words = page.inner_text("body")
    hashes = [word for word in re.findall(r"\b[0-9a-f]{7,}\b", words) if not word.isdecimal() and not word.isalpha()]
    assert not hashes and not re.search(r"(?<![\w.>])/\w", words), "neither hashes nor folders of this machine"
    wanted = {
        "sweep": ("Labels saved", "Label budget", "In plain words"),
        "run": ("t-SNE", "Confusion matrix", "Scores"),
    }
    wanted["several"] = ("Label budget, keep_entries 0.5", "mAP in %", "labelled rows")
    assert name != "several" or page.locator("[data-head=medium]").count() > 1  # shown by the style sheet on a phone
    assert all(word in words for word in wanted[name]) and "undefined" not in words and "NaN" not in words


@pytest.mark.parametrize("width", WIDTHS)
def test_lines_say_their_values_and_can_be_switched_off(width, browser, pages):
    page = browser.new_page(viewport={"width": WIDTHS[width], "height": 900})
    page.goto(pages["sweep"].as_uri())
    figure = page.locator("figure.full")
    seen = figure.locator("svg").locator("visible=true")
    assert seen.count() == 1  # one for wide screens, one for narrow ones
    dots = seen.locator("g g title").all_text_contents()
    results = json.loads(next(pages["sweep"].parent.glob("seed_0/1_per_class/supervised/results.json")).read_text())
    assert len(dots) == 3 * figure.locator("input").count() and results["labels"]["n"] == 10
    assert any(
        re.fullmatch(r"supervised, head: [\d.]+ ± [\d.]+ \(accuracy in %\), 10 labels, of .*", dot) for dot in dots
    )

    (column,) = (text for text in seen.locator("rect title").all_text_contents() if text.startswith("10 labels"))
    values = [float(line.rpartition(": ")[2]) for line in column.splitlines()[1:]]
    assert len(values) == figure.locator("input").count() and values == sorted(values, reverse=True)

    def drawn():
        shown = "[...e.querySelectorAll('g[class]')].filter(g => getComputedStyle(g).display != 'none')"
        return seen.evaluate(f"e => {shown}.length")

    before = drawn()
    figure.locator("label", has_text="fixmatch, head").click()
    assert drawn() == before - 1
    figure.locator("label", has_text="fixmatch, head").click()
    assert drawn() == before > 5
