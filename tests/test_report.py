"""The report of a run, of a comparison and of what is broken: every figure is there, its numbers are the results'."""

import errno
import html.parser
import itertools
import json
import re
import shutil
import sys
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recipes import tiny

import labelfx
from labelfx import config as configs
from labelfx.evals import features
from labelfx.finished import weights
from labelfx.loop import run
from labelfx.report import main
from labelfx.reports import figures
from labelfx.reports.figures import Line
from labelfx.reports.inspection import BINS
from labelfx.reports.page import _chance, report
from labelfx.reports.runs import without_folders
from labelfx.reports.tables import table

VOID = {"meta", "img", "input"}


class Parsed(html.parser.HTMLParser):
    """Tags that do not match raise; addresses, figures' names and the text are kept."""

    def __init__(self, path: Path):
        super().__init__()
        self.open, self.addresses, self.figures, self.shots, self.words = [], [], [], [], []
        self.feed(path.read_text())
        self.close()
        assert not self.open
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[key] for key in ("src", "href") if key in found]
        self.figures += [found["aria-label"]] if "aria-label" in found else []
        self.shots += [found["class"]] if "shot" in found.get("class", "") else []
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def numbers(path: Path, title: str) -> list[list[str]]:
    """The table below a figure, or below a heading, in the Markdown."""
    after = path.read_text().split(title, 1)[1]
    lines = re.search(r"(\|.*\|\n?)+", after)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[:1] + lines[2:]]


def embed(folder, images):
    config, variables = run.load_config(folder), run.load_variables(folder)
    backbone = {name: part["backbone"] for name, part in variables.items() if "backbone" in part}
    return features(run.build_model(config), backbone, images)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    labelfx.train(tiny("supervised", evals={"head": {}, "knn": {"k": 5, "temperature": 0.1}}), folder)
    variables, train = run.load_variables(folder), run.load_data(run.load_config(folder), folder)[0].train
    (head,) = variables["params"]["head"].values()  # a good one, for which six steps are too few
    inputs = embed(folder, train.inputs)
    head["kernel"] = 8 * np.linalg.lstsq(inputs, np.eye(10, dtype=np.float32)[train.labels], rcond=1e-4)[0]
    weights.save(folder / "weights" / "0.safetensors", variables)
    results = labelfx.evaluate(folder)
    pairs = {"positive_counts": [0, 3], "negative_counts": [2, 1], "embeddings": "backbone"}  # what takes long to find
    pairs |= {f"{kind}_{what}": 0.5 for kind in ("positive", "negative") for what in ("mean", "std")}
    results["metrics"] |= {"raw_pixels": {"accuracy": 0.625}, "score_distribution": pairs}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="module")
def page_of(trained, tmp_path_factory):
    return report([trained], tmp_path_factory.mktemp("page") / "r.html")


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the run without its weights, with parts of its results and configuration replaced."""

    def copy(name, seed=0, budget=20, head=0.5, scale=1.0, b2=0.999):
        folder = tmp_path / "runs" / f"{name}_{seed}_{budget}"
        shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("weights", "checkpoints"))
        results, config = (json.loads((folder / f"{part}.json").read_text()) for part in ("results", "config"))
        config |= {"name": name, "seed": seed}
        config["optimizer"]["b2"] = b2
        results |= {"name": name, "config_hash": name, "labels": {"n": budget, "rows_hash": f"{seed} {budget}"}}
        results["seeds"]["seed"], results["metrics"]["head"]["accuracy"] = seed, head
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        lines = [
            json.dumps(line | {"loss": scale * line["step"], "acceptance": line["step"] / 8, "clamped": 0.5})
            for line in lines
        ]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 8, "lo')  # cut short by a kill
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return copy


def test_one_run(trained, page_of):
    out = page_of
    markdown, page = out.with_suffix(".md"), Parsed(out)
    assert {"accuracy", "loss", "Accuracy", "Scores, supervised"} < set(page.figures)
    named = ["Confusion matrix", "Accuracy of each class", "Reliability", "PCA", "t-SNE"]
    assert [name for name in page.figures if name in named] == named
    assert len(page.shots) > 8 * 6 and {"shot wrong", "shot right"} < set(page.shots)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "//" not in re.sub(r'"data:[^"]*"', "", out.read_text()) and "<script" not in out.read_text()
    assert "Left out" not in page.text and "raw_pixels" in page.text
    assert out.stat().st_size < 5e6

    results = json.loads((trained / "results.json").read_text())
    origin = numbers(markdown, "## Runs")[1]
    assert origin[0] == "supervised" and origin[2:5] == ["0 0 0", "20", "6"] and results["finished"] in origin
    assert f"Accuracy {100 * results['metrics']['head']['accuracy']:.2f} %" in page.text
    shown = {row[0]: row[2] for row in numbers(markdown, "**Accuracy.**")}
    for name in ("head", "knn", "raw_pixels"):
        title = name if name == "raw_pixels" else f"supervised, {name}"
        assert shown[title] == f"{results['metrics'][name]['accuracy']:.4g}"
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert numbers(markdown, "**loss.**")[1] == ["supervised", "6", f"{last['loss']:.4g}", "-"]


def test_predictions_are_those_of_the_classifier(trained, page_of):
    markdown = page_of.with_suffix(".md")
    test = run.load_data(run.load_config(trained), trained)[0].test
    (head,) = run.load_variables(trained)["params"]["head"].values()
    logits = embed(trained, test.inputs) @ head["kernel"] + head["bias"][None]
    counts, bins = np.zeros((10, 10), int), [[] for _ in range(BINS)]
    for row, label in zip(logits.astype(np.float64), test.labels, strict=True):
        probabilities = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        counts[label, row.argmax()] += 1
        bins[min(int(probabilities.max() * BINS), BINS - 1)].append((probabilities.max(), row.argmax() == label))
    gaps = [sum(confidence for confidence, _ in each) - sum(right for _, right in each) for each in bins]
    ece = sum(map(abs, gaps)) / len(test.labels)
    assert min(gaps) < -0.5 and max(gaps) > 0.5  # bins of both signs, which must not cancel
    assert [row[1:] for row in numbers(markdown, "**Confusion matrix.**")[1:]] == counts.astype(str).tolist()
    recall = {row[0]: row[1:] for row in numbers(markdown, "**Accuracy of each class.**")[1:]}
    assert recall["3"] == [f"{counts[3, 3] / counts[3].sum():.4g}", str(counts[3].sum())]
    assert f"equal width) {ece:.4f}" in markdown.read_text()
    mistakes = numbers(markdown, "## The most confident mistakes")[1:]
    image = int(mistakes[0][0].removeprefix("test/"))
    assert [int(each) for each in mistakes[0][1:3]] == [test.labels[image], logits[image].argmax()]
    assert sorted(mistakes, key=lambda row: -float(row[3])) == mistakes


def test_without_a_classifier_neighbours_vote(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    variables = run.load_variables(folder)
    del variables["params"]["head"]
    weights.save(folder / "weights" / "0.safetensors", variables)
    page = Parsed(report([folder], tmp_path / "r.html"))
    found = json.loads((folder / "results.json").read_text())["metrics"]["knn"]["accuracy"]
    assert "no classifier: predictions are votes of the k = 5 nearest of 20" in page.text
    assert f"Accuracy {100 * found:.2f} %" in page.text


def test_comparison(copy, tmp_path):
    for seed, (ours, theirs, scale) in enumerate([(0.7, 0.5, 1.0), (0.8, 0.5, 3.0), (0.75, 0.6, 2.0)]):
        copy("ours", seed, 20, ours, scale)
        copy("theirs", seed, 20, theirs, b2=0.5)
        copy("theirs", seed, 40, theirs + 0.1, b2=0.5)
    out = report([tmp_path / "runs"], tmp_path / "r.html", "theirs")
    markdown, page = out.with_suffix(".md"), Parsed(out)
    first = {line.split(" | ")[0]: line.split(" | ") for line in table([tmp_path / "runs"], "theirs").splitlines()}
    shown = {line[0]: line for line in numbers(markdown, "## Results")}
    for name in ("ours, head", "theirs, head", "ours, knn"):
        assert shown[name][1:5] == [cell.replace("+-", "±") for cell in first[f"| {name}"][1:5]]
    budget = numbers(markdown, "**Label budget.**")
    assert ["ours, head", "20", "0.75", "0.05"] in budget
    assert ["theirs, head", "40", f"{np.mean([0.6, 0.6, 0.7]):.4g}", f"{np.std([0.6, 0.6, 0.7], ddof=1):.4g}"] in budget
    assert f"![Label budget]({out.stem}.svg)" in markdown.read_text()
    picture = xml.etree.ElementTree.parse(out.with_suffix(".svg"))
    assert picture.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert len(picture.findall(".//{*}polyline")) == len({line[0] for line in budget[1:]})
    loss = {row[0]: row[1:] for row in numbers(markdown, "**loss.**")}
    assert loss["ours (n = 3)"] == ["6", "12", "6"]  # scales 1, 2 and 3
    assert set(loss) == {"", "ours (n = 3)", "theirs, 20 labels (n = 3)", "theirs, 40 labels (n = 3)"}
    differing = {row[0]: row[1] for row in numbers(markdown, "What differs")}
    assert differing["optimizer.b2"] == "0.999: ours; 0.5: theirs" and "batch.labelled" not in differing
    assert "clamped was 0.5 throughout." in page.text and "clamped" not in page.figures
    assert "acceptance" in page.figures and "whose pseudo-label is learnt from" in page.text
    assert "382 test rows" in page.text and "an accuracy of 75.0 % may come out ± 6.2 points" in page.text
    assert "one of these runs alone has its predictions" in page.text and "Confusion matrix" not in page.figures
    assert markdown.read_text().startswith("# ours, theirs on digits\n")
    opening = markdown.read_text().split("\n\n")[2]
    assert opening.startswith(
        "**With 20 labels**: ours, head (its own classifier) reaches 75.0 % accuracy ± 5.0 over 3"
    )


@pytest.mark.parametrize("other", ["data", "configuration"])
def test_no_advice_from_what_is_not_alike(other, copy, tmp_path):
    """Several data sets, or several configurations of a row, on the same seeds and labels."""
    for seed in range(3):
        for name in ("supervised", "ours", "theirs"):
            folder = copy(name, seed, 20 * (1 + (name != "theirs")), 0.7)
            copy(name, seed, 80, 0.7)
            if other == "data" and name == "theirs":
                config = json.loads((folder / "config.json").read_text())
                (folder / "config.json").write_text(json.dumps(config | {"data": {"name": "npz:other.npz"}}))
            if other == "configuration" and name == "ours":
                results = json.loads((folder / "results.json").read_text())
                (folder / "results.json").write_text(json.dumps(results | {"config_hash": "another"}))
    text = report([tmp_path / "runs"], tmp_path / "r.html").with_suffix(".md").read_text()
    assert "**With " not in text and "## Labels saved" not in text and "verdict" not in text
    reason = {"data": "of several data sets", "configuration": "ours, head; ours, knn: of several configurations"}
    assert f"**No answer**: runs on this page are not alike ({reason[other]}), so none is named" in text


def test_costs_are_found_in_a_copied_sweep(copy, tmp_path):
    """Where a run says from where it started, with the place where that was."""

    def place(folder, where, seconds, **changes):
        config, results = (json.loads((folder / f"{part}.json").read_text()) for part in ("config", "results"))
        results["training"]["seconds"] = seconds
        (folder / "config.json").write_text(json.dumps(config | changes))
        (folder / "results.json").write_text(json.dumps(results))
        where.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(where)

    there, here = tmp_path / "there", tmp_path / "here"
    for seed, seconds in ((0, 100.0), (1, 300.0)):
        at = there / f"seed_{seed}"
        place(copy("moco", seed), at / "moco", seconds)
        place(copy("tuned", seed), at / "1_per_class/moco_finetune", 10.0, backbone=str(at / "moco"))
        place(copy("lost", seed), at / "1_per_class/lost", 1.0, teacher=str(tmp_path / "gone/teacher"))

    def found():
        markdown = report([here if here.exists() else there], tmp_path / "r.html").with_suffix(".md")
        return {line[0]: line[-1] for line in numbers(markdown, "## Results")}

    before = found()
    shutil.copytree(there, here)
    shutil.rmtree(there / "seed_1")  # whether the original is still there or not
    assert before == found() and before["tuned, head"] == "210" and before["lost, head"] == "-"


def test_a_run_that_has_not_ended_does_not_cut_the_curve_of_the_others(copy, tmp_path):
    for seed in range(3):
        folder = copy("ours", seed)
    (folder / "results.json").unlink()
    (folder / "metrics.jsonl").write_text('{"step": 2, "loss": 9.0}\n')
    (folder / "labels.json").write_text(json.dumps({"rows": [0] * 20}))
    config = json.loads((folder / "config.json").read_text())
    for seed in range(2):
        path = folder.parent / f"ours_{seed}_20/results.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"config_hash": configs.config_hash(config)}))
    markdown = report([tmp_path / "runs"], tmp_path / "r.html").with_suffix(".md")
    assert numbers(markdown, "**loss.**")[1:] == [["ours (n = 2)", "6", "6", "0"]]
    assert "Runs that have not ended are left out: 1." in markdown.read_text()


def test_other_test_images_fall_within_the_interval_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for truth, tested in ((0.9, 382), (0.9, 10_000), (0.5, 40), (0.95, 40)):
        ours, others = rng.binomial(tested, truth, (2, 20_000)) / tested
        within = np.mean([abs(a - b) <= _chance(a, tested) for a, b in zip(ours, others, strict=True)])
        assert 0.94 < within < 0.985, (truth, tested, within)
    assert 0.1 < _chance(1.0, 12) < 0.5


def test_a_name_with_a_bar_stays_in_its_cell(copy, tmp_path):
    copy("a | b")
    copy("supervised")
    out = report([tmp_path / "runs"], tmp_path / "r.html")
    (line,) = (
        line for line in out.with_suffix(".md").read_text().splitlines() if line.startswith("| a \\| b, head | 50")
    )
    assert len(re.split(r"(?<!\\)\|", line)) == 2 + 6


def test_many_runs_do_not_fill_the_title(copy, tmp_path):
    for name in "abcdefg":
        copy(name)
    out = report([tmp_path / "runs"], tmp_path / "r.html")
    assert "<title>a, b, c and 4 more on digits</title>" in out.read_text()


def test_ticks_are_as_one_writes_numbers():
    at = (0.05, 10, 1000, 60_000, 5_000_000)
    svg = figures.lines([Line("", at, at)], "labels", "accuracy", log=True)
    assert all(f">{tick}<" in svg for tick in ("0.05", "10", "1,000", "60,000", "5e6"))


def test_the_last_tick_is_not_cut_off():
    svg = figures.lines([Line("", [0, 100_000], [0, 1])], "step", "loss")
    middle = float(re.search(r'x="([\d.]+)"[^>]*>100,000<', svg)[1])
    assert middle + 4.5 * len("100,000") < figures.WIDTH  # half of its width at 15 pixels a line


def test_numbers_of_close_ticks_do_not_overlap():
    budgets = (10, 40, 250, 1000, 1415)
    svg = figures.lines([Line("", budgets, np.linspace(0, 1, 5))], "labels", "accuracy", log=True)
    found = re.findall(r'x="([\d.]+)" y="250.0"[^>]*>([\d,]+)<', svg)
    ends = sorted((float(x) - 4.5 * len(text), float(x) + 4.5 * len(text)) for x, text in found)
    assert all(right < left for (_, right), (left, _) in itertools.pairwise(ends))
    assert {text for _, text in found} == {"10", "40", "250", "1,415"} and svg.count("v4") == 5


def test_what_is_missing_is_left_out(trained, copy, tmp_path):
    folder = copy("one")
    (folder / "metrics.jsonl").unlink()
    page = Parsed(report([folder], tmp_path / "r.html"))
    assert "Training " not in page.text and "loss" not in page.figures and "Left out: no weights at" in page.text
    (folder / "results.json").unlink()
    page = Parsed(report([folder], tmp_path / "r.html"))
    assert "No answer : no run here has results yet." in page.text and "not finished" in page.text
    shutil.copytree(trained / "weights", folder / "weights")
    config = json.loads((folder / "config.json").read_text())
    config["data"] = {"name": f"npz:{tmp_path}/gone.npz"}
    (folder / "config.json").write_text(json.dumps(config))
    page = Parsed(report([folder], tmp_path / "r.html"))
    assert "Left out: config.data" in page.text and "gone.npz" in page.text
    copy("other", head=float("nan"))
    (copy("broken") / "results.json").write_text("[1]")
    copy("<b>")
    page = Parsed(report([tmp_path / "runs"], tmp_path / "r.html"))
    assert "<b>_0_20" in page.text and "broken_0_20 does not hold a run as it was written" in page.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["empty"], "empty: no run there"),
        (["broken"], "broken does not hold a run"),
        (["run", "--out=r.txt"], "--out=r.txt: must end in .html"),
        (["run", "--out=no/r.html"], "there is no folder no"),
        (["run", "--baseline=supervise"], "did you mean 'supervised'?"),
    ],
)
def test_a_mistake_is_one_line(trained, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(trained)
    for folder in ("empty", "broken"):
        (tmp_path / folder).mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and said in error and error.count("\n") == 1
    assert not list(tmp_path.glob("*.html"))


def test_a_full_disk_leaves_the_report_before(copy, tmp_path, monkeypatch, capsys):
    folder, out = copy("one"), tmp_path / "r.html"
    out.write_text("before")

    def full(path, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    monkeypatch.setattr(sys, "argv", ["report", str(folder), f"--out={out}"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1 and capsys.readouterr().err.endswith("not written (No space left on device)\n")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["r.html"] and out.read_text() == "before"


def test_lines_are_drawn_to_scale():
    svg = figures.lines([Line("a", [0, 5, 10], [1, 2, 3], [1, 1, 1]), Line("b", [0, 10], [0, 4])], "step", "loss")
    first, second = (
        np.array([point.split(",") for point in points.split()], float)
        for points in re.findall(r'polyline points="([^"]*)"', svg)
    )
    np.testing.assert_allclose(first[1], (first[0] + first[2]) / 2, atol=0.1)
    assert first[0, 0] < first[2, 0] and first[0, 1] > first[2, 1]  # up is a smaller y
    np.testing.assert_allclose(second[0, 1] - second[1, 1], 2 * (first[0, 1] - first[2, 1]), atol=0.2)
    band = re.search(r'polygon points="([^"]*)"', svg)[1].split()
    assert band[0] == f"{first[0, 0]:.1f},{first[1, 1]:.1f}"  # 1 + 1 at the first x is as high as 2
    widths = re.findall(
        r'<rect [^>]*width="([^"]*)"', figures.bars([Line("a", None, [0.8]), Line("b", None, [0.4])], "share")
    )
    assert float(widths[0]) == pytest.approx(2 * float(widths[1]), abs=0.1)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-9, 1e-9], [1e12, 2e12], [-3.0, 3.0]])
def test_any_range_can_be_drawn(values):
    assert "nan" not in figures.lines([Line("a", [2, 2], values)], "x", "y")
    assert "nan" not in figures.lines([Line("a", [10, 10], values)], "x", "y", log=True)


def test_whether_rows_are_augmented_alike(copy):
    """A sentence where they are, a warning where not, and what cannot be read is passed over."""
    folders = [copy("a"), copy("b")]

    def told(**methods):
        for folder in folders:
            config = json.loads((folder / "config.json").read_text())
            config["method"] = methods[config["name"]]
            (folder / "config.json").write_text(json.dumps(config))
        markdown = report(folders, folders[0].parent / "r.html").with_suffix(".md").read_text()
        return [line for line in markdown.splitlines() if "augment" in line or "weaker" in line]

    def shift(padding):
        return {"name": "crop_flip", "padding": padding, "flip": False}

    a = {"name": "supervised", "augment": shift(1)}
    both = {"name": "consistency", "weak": shift(0), "strong": shift(1)}
    alike, besides, *_ = told(a=a, b=both)
    assert alike == "Every row is trained with one augmentation: crop_flip (flip=False, padding=1)."
    assert besides.startswith("Besides, b: as published a weaker one, crop_flip (flip=False, padding=0), for labelled")
    beware, *_ = told(a=a, b=both | {"strong": shift(2)})
    assert "a: crop_flip (flip=False, padding=1); b: crop_flip (flip=False, padding=2)." in beware
    assert beware.startswith("Beware: rows are not augmented alike")
    assert told(a=a, b={"name": "mixup", "augment": shift(1)})[0] == alike


def test_no_folder_of_this_machine_is_on_the_page(copy, tmp_path):
    """Neither in the title nor in a configuration: of a path its last name is left."""
    for name in ("ours", "supervised"):
        folder = copy(name)
        config = json.loads((folder / "config.json").read_text())
        config |= {
            "data": {"name": "folder:/home/me/photos", "data_dir": "/home/me/data"},
            "backbone": f"/home/me/{name}",
        }
        (folder / "config.json").write_text(json.dumps(config))
    out = report([tmp_path / "runs"], tmp_path / "r.html")
    both = out.read_text() + out.with_suffix(".md").read_text()
    assert "<title>ours, supervised on folder:photos</title>" in both and "/home" not in both
    assert numbers(out.with_suffix(".md"), "What differs")[1] == ["backbone", '"ours": ours; "supervised": supervised']


def test_other_scores_have_a_table_of_their_own(copy, tmp_path):
    """An accuracy in %, and a score in its unit, are not in one column; what is not there has no heading."""
    folder = copy("ours")
    results = json.loads((folder / "results.json").read_text())
    del results["metrics"]["score_distribution"]
    results["metrics"]["rankme"] = {"value": 531.9}
    (folder / "results.json").write_text(json.dumps(results))
    markdown = report([tmp_path / "runs"], tmp_path / "r.html").with_suffix(".md")
    assert [line[:2] for line in numbers(markdown, "Other scores")[1:]] == [["ours, rankme", "531.9"]]
    before, _ = markdown.read_text().split("Other scores")
    assert "ours, head" in before and "rankme" not in before and "Scores of pairs" not in markdown.read_text()
    assert "Scores of pairs" in report([copy("theirs")], tmp_path / "t.html").read_text()


def test_why_a_floor_counts_once(copy, tmp_path):
    """Seeds that share all their labels have one result of raw pixels; those that do not, one each."""
    told = []
    for shared in (False, True):
        for seed in range(2):
            folder = copy(f"ours{shared}", seed)
            results = json.loads((folder / "results.json").read_text())
            results["labels"]["rows_hash"] = "all" if shared else str(seed)
            (folder / "results.json").write_text(json.dumps(results))
        markdown = report((tmp_path / "runs").glob(f"ours{shared}*"), tmp_path / "r.html").with_suffix(".md")
        floors = [line for line in markdown.read_text().splitlines() if line.startswith("| raw_pixels | 62.50")]
        told.append((floors[0].split(" | ")[3], "A floor counts once" in markdown.read_text()))
    assert told == [("2", False), ("1", True)]


def test_a_label_budget_is_in_percent_and_its_legend_as_the_curves_end(copy, tmp_path):
    for name, end in (("a", 0.4), ("b", 0.6)):
        copy(name, 0, 20, 0.3), copy(name, 0, 40, end)
    picture = report([tmp_path / "runs"], tmp_path / "r.html").with_suffix(".svg").read_text()
    assert picture.index(">b, head<") < picture.index(">a, head<") < picture.index(">raw_pixels<")
    assert ">accuracy in %<" in picture and ">40<" in picture and ">0.4<" not in picture


def test_files_are_named_beside_mistakes_and_classes_are_shown(tmp_path):
    """Of a folder of photographs: three of each class with its counts, and names that lead to the files."""
    rng = np.random.default_rng(0)
    for split, each in (("train", 9), ("test", 5)):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(each):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"IMG {i}.png")
    data = {"name": f"folder:{tmp_path / 'photos'}", "image_size": 8, "channels": 3}
    labelfx.train(tiny("supervised", data=data, labels={"name": "all_labels"}, evals={"head": {}}), tmp_path / "run")
    out = report([tmp_path / "run"], tmp_path / "r.html")
    page, text = Parsed(out), out.with_suffix(".md").read_text()
    assert text.startswith("# supervised on folder:photos, 18 labels\n\n**With 18 labels**: supervised, head (its own")
    assert "18 training images of 8 x 8 pixels, 10 test images, 2 classes." in page.text
    assert "cat: 9 training, 5 test" in page.text and page.shots.count("shot sample") == 2
    mistakes = [row[0] for row in numbers(out.with_suffix(".md"), "## The most confident mistakes")[1:]]
    assert mistakes and all((tmp_path / "photos" / name).is_file() for name in mistakes)
    assert all(name in page.text for name in mistakes) and f"{tmp_path}" not in out.read_text() + text


def test_folders_are_left_out_of_what_went_wrong():
    assert without_folders("no weights at /home/me/run/0.safetensors: /tmp/x") == "no weights at 0.safetensors: x"
    assert without_folders(["1/2 of it", {"a": "folder:/data/photos"}, 3]) == ["1/2 of it", {"a": "folder:photos"}, 3]
