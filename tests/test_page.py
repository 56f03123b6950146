"""The report in a real browser, outside the usual run:

    apt install chromium; pip install -e '.[test,page]'; python -m pytest -m slow tests/test_page.py --basetemp=DIR

leaves its screenshots below DIR.
"""

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
    assert path.stat().st_size < 5e6
    page = browser.new_page(viewport={"width": WIDTHS[width], "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.screenshot(path=tmp_path / f"{name}_{width}.png", full_page=True)
    assert not said and [url for url in asked if not url.startswith("data:")] == [path.as_uri()]

    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]  # nothing to push aside
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure svg, .shot img')].map(e => [e.getBoundingClientRect(), e])"
        ".map(([box, e]) => [box.width, box.height, e.naturalWidth || e.querySelectorAll('*').length])"
    )
    assert len(boxes) >= {"sweep": 8, "run": 40, "several": 8}[name] and all(
        w > 30 and h > 20 and parts for w, h, parts in boxes
    )
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg')].map(e => 12 * e.getBoundingClientRect().width / e.viewBox.baseVal.width)"
    )
    assert min(sizes) >= 10  # pixels, of the figures' text
    text = page.evaluate("[...document.querySelectorAll('p, td, figcaption')].map(e => getComputedStyle(e).fontSize)")
    assert min(float(size.removesuffix("px")) for size in text) >= 12
    words = page.inner_text("body")
    wanted = {"sweep": ("Which to use", "Labels saved", "Label budget"), "run": ("t-SNE", "Confusion matrix", "Scores")}
    wanted["several"] = ("Label budget, keep_entries 0.5", "mAP in %", "labelled rows", "medium")
    assert all(word in words for word in wanted[name]) and "undefined" not in words and "NaN" not in words
