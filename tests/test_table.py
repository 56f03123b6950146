"""The table of results against a loop over hand-made runs; its command on broken folders."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments import recipes
from labelfx.reports.tables import table


@pytest.fixture
def write(tmp_path):
    """Writes a run's results; a different folder each time."""

    def write(name, metrics, seed=0, n=10, labels="a", config_hash="c0", commit="0123456789", task=None, weak=None):
        folder = tmp_path / f"run_{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        results = {
            "name": name,
            "metrics": {key: part if isinstance(part, dict) else {"accuracy": part} for key, part in metrics.items()},
            "config_hash": config_hash,
            "commit": commit,
            "seeds": {"seed": seed, "label_seed": seed, "data_seed": seed},
            "labels": {"n": n, "rows_hash": labels} | ({"weak": weak} if weak else {}),
        }
        if task:
            results["data"] = {"task": task}
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    return write


def cells(text):
    """Row title -> its cells, and the lines below the table."""
    lines = text.splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return {row[0].strip(): [c.strip() for c in row[1:]] for row in rows}, [x for x in lines if not x.startswith("|")]


def test_means_and_paired_differences(write, tmp_path):
    rng = np.random.default_rng(0)
    ours, base = rng.uniform(0.5, 1, (2, 2, 5))  # budget, seed
    for b, n in enumerate((10, 100)):
        for seed in range(5):
            write("simclr", {"linear_probe": ours[b, seed], "rankme": {"value": 7.0}}, seed, n, f"{n}/{seed}")
            write("supervised", {"head": base[b, seed]}, seed, n, f"{n}/{seed}", config_hash="c1")
    rows, _ = cells(table([tmp_path], "supervised"))
    assert rows[""][:5] == ["10 labels", "sd", "n", "difference to supervised", "100 labels"]
    for b in range(2):
        mean = sum(ours[b]) / 5
        sd = (sum((x - mean) ** 2 for x in ours[b]) / 4) ** 0.5
        pairs = [x - y for x, y in zip(ours[b], base[b], strict=True)]
        difference = sum(pairs) / 5
        error = (sum((x - difference) ** 2 for x in pairs) / 4 / 5) ** 0.5
        noise = " (noise)" if abs(difference) <= 2.776 * error else ""
        expected = [f"{100 * mean:.2f}", f"{100 * sd:.2f}", "5", f"{100 * difference:+.2f} +- {100 * error:.2f}{noise}"]
        assert rows["simclr, linear_probe"][4 * b : 4 * b + 4] == expected
    assert rows["simclr, linear_probe"][8:] == ["c0", "0123456"]
    assert rows["simclr, rankme"][:4] == ["7", "0", "5", "-"]
    assert rows["supervised, head"][3] == "baseline"


@pytest.mark.parametrize(
    ("differences", "noise"),
    [((0.1, 0.1, 0.13), False), ((0.1, -0.1, 0.1), True), ((0.01, 0.02, 0.03), True), ((0.018, 0.02, 0.03), False)],
)
def test_noise_is_within_the_interval(write, tmp_path, differences, noise):
    for seed, difference in enumerate(differences):
        write("a", {"head": 0.5 + difference}, seed)
        write("b", {"head": 0.5}, seed)
    assert ("(noise)" in cells(table([tmp_path], "b/head"))[0]["a, head"][3]) is noise


def test_rows_are_compared_by_their_own_eval(write, tmp_path):
    write("a", {"linear_probe": 0.7, "knn": 0.6, "head": 0.9}, 0)
    write("b", {"linear_probe": 0.5, "knn": 0.3}, 0)
    rows, _ = cells(table([tmp_path], "b"))
    assert [rows[f"a, {name}"][3] for name in ("linear_probe", "knn", "head")] == [
        f"{value} +- -" for value in ("+20.00", "+30.00", "+40.00")
    ]
    assert rows["b, knn"][3] == rows["b, linear_probe"][3] == "baseline"
    assert cells(table([tmp_path], "b/knn"))[0]["b, linear_probe"][3] == "+20.00 +- -"
    for name, seed, value in (("a", 0, 0.25), ("a", 1, 0.35), ("b", 0, 0.125), ("b", 1, 0.25)):
        write(name, {"spearman": {"value": value}}, seed)
    rows, _ = cells(table([tmp_path], "b"))
    assert rows["a, spearman"][3] == "+0.1125 +- 0.0125 (noise)" and rows["b, spearman"][3] == "baseline"
    assert cells(table([tmp_path], "b/knn"))[0]["a, spearman"][3] == "-"


def test_pairs_share_seeds_and_labels(write, tmp_path):
    for seed in range(3):
        write("a", {"head": 0.7 + 0.1 * seed}, seed, labels="other" if seed == 2 else "same")
    for seed in range(1, 3):
        write("b", {"head": 0.5}, seed, labels="same")
    rows, _ = cells(table([tmp_path], "b"))
    assert rows["a, head"][:4] == ["80.00", "10.00", "3", "+30.00 +- -"]  # only seed 1 is a pair
    assert rows["b, head"][:4] == ["50.00", "0.00", "2", "baseline"]


def test_floors_count_once_for_each_draw(write, tmp_path):
    for seed, labels in ((0, "x"), (1, "x"), (2, "y")):
        floors = {"raw_pixels": 0.5 if labels == "x" else 0.7, "random_encoder": 0.1 * (seed + 1)}
        for name in ("simclr", "debiased", "supervised"):
            write(name, {"head": 0.9} | floors, seed, labels=labels, config_hash=name)
    rows, below = cells(table([tmp_path], "supervised"))
    assert rows["raw_pixels"][:3] == ["60.00", "14.14", "2"]  # two label draws
    assert rows["random_encoder"][:3] == ["20.00", "10.00", "3"]
    assert rows["raw_pixels"][3].startswith("-33.33 +- ")  # three pairs: 0.5, 0.5 and 0.7 against 0.9
    assert rows["raw_pixels"][4] == "-"
    assert list(rows)[2:4] == ["raw_pixels", "random_encoder"]
    assert not any("warning" in line for line in below)
    write("simclr", {"raw_pixels": 0.6}, 0, labels="x")
    assert "raw_pixels differs between runs" in table([tmp_path])


def test_mixed_configurations_and_commits_are_shown(write, tmp_path):
    write("a", {"head": 0.5}, 0)
    write("a", {"head": 0.6}, 1, config_hash="c9", commit="abcdefabcdef+changes")
    write("b", {"head": 0.6}, 1, commit=None)
    rows, below = cells(table([tmp_path]))
    assert rows["a, head"] == ["55.00", "7.07", "2", "c0 c9", "0123456 abcdefa+changes"]
    assert rows["b, head"] == ["60.00", "-", "1", "c0", "-"]
    assert [line for line in below if "warning" in line] == [
        "warning: a, head mixes configurations: c0, c9",
        "warning: a, head mixes commits: 0123456, abcdefa+changes",
    ]


def test_a_missing_budget_is_a_dash(write, tmp_path):
    write("a", {"head": 0.5}, n=10)
    write("b", {"head": 0.5}, n=100)
    assert cells(table([tmp_path], "b"))[0]["a, head"] == ["50.00", "-", "1", "-", *"----", "c0", "0123456"]


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"name": 1}', '{"metrics": {"head": {"accuracy": 1}}}', "null"])
def test_broken_results_are_named_and_left_out(write, tmp_path, text):
    write("a", {"head": 0.5})
    (write("b", {"head": 0.5}) / "results.json").write_text(text)
    rows, below = cells(table([tmp_path, tmp_path / "run_0"]))  # a folder inside another counts once
    assert list(rows)[2:] == ["a, head"] and rows["a, head"][2] == "1"
    (warning,) = [line for line in below if line.startswith("warning")]
    assert "run_1/results.json is left out" in warning


def test_the_headline_is_that_of_the_task(write, tmp_path):
    """Shares in %, an error in its unit, each with the floor that stands beside it; one axis a task."""
    write("a", {"multilabel": {"mAP": 0.5, "prevalence": 0.25, "OF1": 0.9}}, task="several")
    write("a", {"multilabel": {"mAP": None, "prevalence": None}}, 1, task="several")
    rows, below = cells(table([tmp_path]))
    assert rows[""][0] == "10 labelled rows" and below[1].startswith("mAP in %: mean and sd")
    assert rows["a, multilabel"][:3] == ["50.00", "-", "1"] and rows["prevalence"][:3] == ["25.00", "-", "1"]
    write("b", {"regression_error": {"error": 44.0, "constant_error": 60.5}, "rankme": {"value": 3.0}}, task="target")
    rows, below = cells(table([tmp_path], "constant_error"))
    assert (
        rows["b, regression_error"][0] == "44" and rows["constant_error"][0] == "60.5" and rows["b, rankme"][0] == "3"
    )
    assert rows["b, regression_error"][3] == "-16.5000 +- -" and rows["a, multilabel"][3] == "-"
    assert below[1].startswith("mAP in %, error: mean")


def test_labels_of_a_kind_are_rows_of_their_own(write, tmp_path):
    """In the order of their strength; pairs are of one kind and strength, though they share rows and seeds."""
    for rate, base in ((0.4, 0.5), (0.05, 0.7), (None, 0.9)):
        weak = rate and {"name": "symmetric", "rate": rate}
        (
            write("ours", {"head": base + 0.05}, weak=weak),
            write("supervised", {"head": base, "raw_pixels": base}, weak=weak),
        )
    rows, _ = cells(table([tmp_path], "supervised"))
    titles = [title for title in rows if "ours" in title]
    assert titles == ["ours, head", "ours, head, symmetric 0.05", "ours, head, symmetric 0.4"]
    assert [rows[title][3] for title in titles] == 3 * ["+5.00 +- -"]
    assert [rows[f"raw_pixels{kind}"][0] for kind in ("", ", symmetric 0.05", ", symmetric 0.4")] == [
        "90.00",
        "70.00",
        "50.00",
    ]
    write("theirs", {"head": 0.6}, weak={"name": "asymmetric", "flips": [[0, 1]], "rate": 0.4})
    rows, _ = cells(table([tmp_path], "supervised"))
    assert rows["theirs, head, asymmetric (flips=[[0, 1]], rate=0.4)"][3] == "-"  # no baseline of that kind


def test_a_task_that_is_none(write, tmp_path):
    write("a", {"head": 0.5}), write("b", {"head": 0.5}, task="severl")
    (warning,) = [line for line in cells(table([tmp_path]))[1] if line.startswith("warning")]
    assert "run_1/results.json is left out" in warning and "did you mean 'several'" in warning


def run(*arguments):
    done = subprocess.run([sys.executable, "-m", "labelfx.table", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_command(write, tmp_path):
    assert run(str(tmp_path)) == (2, "", f"error: no results.json with results at or below {tmp_path}\n")
    write("supervised", {"head": 0.5})
    assert run(str(tmp_path), "--baseline=supervised") == (0, table([tmp_path], "supervised"), "")
    code, _, error = run(str(tmp_path), "--baseline=supervise")
    assert code == 2 and "did you mean 'supervised'? allowed: supervised, supervised/head" in error
    assert error.count("\n") == 1


def test_the_recipes_table(write, tmp_path):
    """A recipe's own classifier or else its probe, beside what fine-tuning reaches; no bracket where all is noise."""
    for seed, draw in enumerate((0.0, 0.01, 0.02)):
        write("supervised", {"head": 0.7 + draw, "raw_pixels": 0.6}, seed, labels=f"{seed}")
        write("moco", {"linear_probe": 0.8 + 2 * draw, "knn": 0.1}, seed, labels=f"{seed}")
        write("moco + finetune", {"head": 0.7 + (seed - 1) * 0.1}, seed, labels=f"{seed}")
    rows, below = cells(recipes.table(tmp_path))
    assert rows["[moco](moco.py)"][1:] == ["82.0 ± 2.0<br>(+11.0 ± 0.6)", "70.0 ± 10.0"]
    assert rows["[supervised](supervised.py)"][1:] == ["71.0 ± 1.0", ""]
    assert rows["[finetune](finetune.py)"][1:] == ["", ""]
    assert "MoCo" in rows["[moco](moco.py)"][0]
    assert below[-1] == "Floors: raw_pixels 60.0 ± 0.0 (-11.0 ± 0.6). At commit 0123456."
    named = {title[1 : title.index("]")] for title in rows if title.startswith("[")}
    assert named == {path.stem for path in recipes.CONFIGS.glob("*.py")}
