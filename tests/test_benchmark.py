"""The label-efficiency benchmark: its runs, what it refuses, and a small one to its report."""

import copy
import json
import re
import shutil
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.sparse
from recipes import AUGMENT, ENCODER
from test_report import numbers

from labelfx import config as configs
from labelfx.compare import _main
from labelfx.config import ConfigError, command
from labelfx.data.sources.images import digits
from labelfx.loop.run import load_data
from labelfx.loop.starts import description_of, floors_with, start_from
from labelfx.loop.suited import AUGMENTATIONS, adapt, judge, override, read_recipes, set_augmentations
from labelfx.models.pretrained import upper
from labelfx.reports import sweep
from labelfx.reports.label_budgets import benchmark, jobs
from labelfx.reports.page import report
from labelfx.reports.sweep import Job, check
from labelfx.reports.views import label_view, weak_label

DIGITS = {"name": "digits"}
METHODS = ("distillation", "hard_negative", "moco", "supervised_contrastive", "fixmatch", "curriculum_labeling")
TRUTH = {"weak": None, "validation": 0}
SMALL = {
    "steps": 2,
    "model": {"name": "mlp", "hidden": (4,), "dtype": "float32"},
    "method.augment": {"name": "identity"},
    "method.projector.hidden": (),
    "optimizer.schedule.warmup_steps": 0,
    "devices": 1,
}


def test_the_runs():
    recipes = read_recipes(DIGITS, METHODS)
    recipes["moco"]["model"] = recipes["moco"]["model"] | {"width": 16}
    every = list(jobs(recipes, (4, "all"), range(2), Path("/w")))
    assert len({job.folder for job in every}) == len(every)
    runs = {job.folder.relative_to("/w").as_posix(): configs.check(job.config) for job in every if not job.pretrained}
    probes = {job.folder.relative_to("/w").as_posix(): job for job in every if job.pretrained}
    at = ("seed_0/4_per_class", "seed_0/all_labels", "seed_1/4_per_class", "seed_1/all_labels")
    trained = ("supervised", "supervised_contrastive", "fixmatch", "curriculum_labeling", "distillation")
    shared = ("hard_negative", "moco")
    expected = {f"seed_{seed}/{name}" for seed in (0, 1) for name in shared}
    expected |= {f"{folder}/{name}" for folder in at for name in (*trained, *(f"{s}_finetune" for s in shared))}
    assert runs.keys() == expected and probes.keys() == {f"{folder}/{name}_probe" for folder in at for name in shared}

    order = [job.folder for job in every]
    for place, run in runs.items():
        seed = int(place[5])
        assert run.seed == run.label_seed == run.data_seed == seed and run.data["name"] == "digits"
        view = {"name": "all_labels"} if "4_per_class" not in place else {"name": "per_class", "k": 4}
        assert run.labels == view | TRUTH
        for start in (run.backbone, *run.teacher):
            assert not start or order.index(Path(start)) < order.index(Path("/w", place))
        if place.endswith("_finetune"):
            baseline, before = runs[f"{place.rpartition('/')[0]}/supervised"], runs[run.backbone.removeprefix("/w/")]
            assert before.seed == seed and before.model == run.model
            assert run.method["augment"] == baseline.method["augment"]
            assert (run.steps, run.batch, run.optimizer) == (baseline.steps, baseline.batch, baseline.optimizer)
    assert runs["seed_1/4_per_class/distillation"].teacher == ("/w/seed_1/4_per_class/hard_negative_finetune",)
    assert {"raw_pixels", "random_encoder", "head"} == runs["seed_0/4_per_class/supervised"].evals.keys()
    assert {"linear_probe"} == runs["seed_0/4_per_class/supervised_contrastive"].evals.keys()
    for place, job in probes.items():
        assert job.pretrained == Path("/w", place[:6], Path(place).name.removesuffix("_probe"))
        assert job.config["labels"] | TRUTH == runs[f"{place.rpartition('/')[0]}/supervised"].labels


def test_a_budget_that_is_all_there_is(tmp_path, monkeypatch, capsys):
    """`all` of a data set with four labels a class is the budget of 4 again."""
    labels = np.repeat(np.arange(10, dtype=np.int32), 4)
    images = np.zeros((40, 8, 8, 1), np.uint8)
    own = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez(tmp_path / "own.npz", **own)
    worked = []
    monkeypatch.setattr("labelfx.reports.sweep.check", lambda *_: None)
    monkeypatch.setattr("labelfx.reports.sweep.work_off", worked.extend)
    monkeypatch.setattr("labelfx.reports.label_budgets.report", lambda *_: None)
    benchmark({"name": f"npz:{tmp_path / 'own.npz'}"}, ["simclr"], (1, 4, "all"), [0], tmp_path / "w")
    assert {job.folder.parent.name for job in worked} == {"seed_0", "1_per_class", "4_per_class"}
    assert capsys.readouterr().err.endswith("--labels=all: the same 40 labels as 4; left out\n")


def test_the_time_left_is_that_of_runs_alike():
    def left(*names):
        return sweep._left(taken, [sweep.Job(Path("/w/seed_1", name), {}) for name in names])

    taken = {("a", "1_per_class"): [2.0, 4.0], ("a", "4_per_class"): [9.0], ("b", "seed_0"): [100.0]}
    assert left("1_per_class/a") == 3 and left("25_per_class/a") == 5 and left("b") == 100
    assert left("1_per_class/c", "4_per_class/a") == 115 / 4 + 9
    assert sweep.clock(30 * 3600 + 5 * 60 + 8.7) == "30:05:09"


def test_without_pre_training_the_baseline_teaches():
    every = list(jobs(read_recipes(DIGITS, ["distillation"]), (4,), [0], Path("/w")))
    assert [job.folder.name for job in every] == ["supervised", "distillation"]
    assert every[1].config["teacher"] == "/w/seed_0/4_per_class/supervised"


COLOUR = AUGMENTATIONS[3]["strong"]
EVERY = ["fixmatch", "moco", "meta_pseudo_labels", "curriculum_labeling", "distillation", "papers/uda_cifar10"]


@pytest.mark.parametrize(("channels", "name"), [(1, "small_grey"), (3, "simclr")])
def test_every_row_of_a_comparison_is_augmented_alike(channels, name):
    """By what the runs are in the end, phases, fine-tunings and teachers among them; `weak` alone is another."""
    recipes = read_recipes(DIGITS, [*EVERY, "own_images"])
    lines = set_augmentations(recipes.values(), np.zeros((9, 32, 40, channels), np.uint8))
    found = {"weak": set(), "strong": set()}
    for job in jobs(recipes, (4,), [0], Path("/w")):
        if not job.pretrained:
            fields = configs.flatten(configs.plain(configs.check(job.config)))
            parts = {path.rpartition(".")[0]: name for path, name in fields.items() if path.endswith(".name")}
            for path in (path for path, name in parts.items() if name in AUGMENT):
                keys = ((key.rpartition("."), value) for key, value in fields.items())
                part = {key[2]: value for key, value in keys if key[0] == path}
                found["weak" if path.endswith(".weak") else "strong"].add(configs.one_line(part))
    (strong,), (weak,) = found["strong"], found["weak"]
    assert strong.startswith(f"{name} (") and weak == f"crop_flip (flip={channels == 3}, padding=4)"
    assert strong in lines[0] and weak in lines[1] and len(lines) == 2
    # Of grey images it is what the digits' recipes agree on.
    if channels == 1:
        assert recipes["supervised"]["method"]["augment"] == read_recipes(DIGITS, [])["supervised"]["method"]["augment"]
    assert "padding" not in AUGMENTATIONS[channels]["weak"]


def test_other_data_keep_the_recipes_augmentation():
    recipes, before = (read_recipes(DIGITS, EVERY) for _ in range(2))
    (line,) = set_augmentations(recipes.values(), np.zeros((9, 8, 8, 2), np.uint8))
    assert recipes == before and "each recipe's own" in line


def test_rows_that_are_no_images_are_not_augmented():
    recipes = read_recipes(DIGITS, EVERY)
    (line,) = set_augmentations(recipes.values(), np.zeros((9, 16), np.int32))
    found = [
        part for recipe in recipes.values() for method, key in configs.augmentations(recipe) for part in [method[key]]
    ]
    assert found and all(part == {"name": "identity"} for part in found) and "identity" in line


def test_an_override_that_fits_some_rows():
    recipes = read_recipes(DIGITS, ["fixmatch", "curriculum_labeling", "meta_pseudo_labels"])
    assert override(recipes, "method.augment.cutout", 0.25) == ["fixmatch", "meta_pseudo_labels"]
    assert override(recipes, "steps", 7) == [] and all(recipe["steps"] == 7 for recipe in recipes.values())
    cutouts = {phase["method"]["augment"]["cutout"] for phase in recipes["curriculum_labeling"]["phases"]}
    assert cutouts == {0.25}  # its phases replace the method, all of it
    assert recipes["meta_pseudo_labels"]["phases"][1]["method"]["augment"] == recipes["fixmatch"]["method"]["weak"]


@pytest.mark.parametrize(("augment", "cutout"), [("data", 0.0), ("recipe", 0.3)])
def test_what_is_printed_and_overridden(augment, cutout, tmp_path, monkeypatch, capsys):
    worked = []
    monkeypatch.setattr("labelfx.reports.sweep.check", lambda *_: None)
    monkeypatch.setattr("labelfx.reports.sweep.work_off", worked.extend)
    monkeypatch.setattr("labelfx.reports.label_budgets.report", lambda *_: None)
    benchmark(DIGITS, ["fixmatch"], [4], [0], tmp_path / "w", {"method.augment.max_rotation": 5.0}, augment)
    methods = {job.folder.name: job.config["method"] for job in worked}
    assert methods["supervised"]["augment"]["max_rotation"] == 5 and methods["fixmatch"]["strong"]["max_rotation"] == 15
    assert methods["fixmatch"]["strong"]["cutout"] == cutout
    *chosen, left_out = capsys.readouterr().err.splitlines()
    assert left_out == "--override=method.augment.max_rotation: not in fixmatch, left as it was there"
    assert len(chosen) == (2 if augment == "data" else 0)


@pytest.mark.parametrize(
    ("methods", "budgets", "overrides", "message"),
    [
        (["simclrr"], [1], {}, r"simclrr: neither a file nor a recipe.*did you mean 'simclr'"),
        (["simclr", "simclr"], [1], {}, "--methods=simclr: another one is named 'simclr' too"),
        (["finetune"], [1], {}, "--methods=finetune: starts from another run"),
        (["simclr"], [1], {"step": 3}, "--override=step=...: no recipe has that.*did you mean 'steps'"),
        (["simclr"], [1], {"steps": "many"}, "config.steps"),
        (["simclr"], [1, 200], {}, "config.labels: k = 200: class 8 has"),
        (["moco"], [1], {"steps": 5}, r"moco: config.optimizer: cosine: warmup_steps = 20 must be less than the 5"),
        (["moco"], [1], {"method.queue_size": 1000}, "moco: config.method: queue_size = 1000: must be a multiple"),
        (["moco"], [1], {"batch.labelled": 0}, "supervised: config.batch: both sizes are 0"),
        (["moco"], [1], {"batch.unlabelled": 2048}, "moco: config.batch.unlabelled = 2048: more than the 1415"),
        (
            ["moco"],
            [1],
            {"method.augment": COLOUR},
            r"moco: config.method: simclr takes RGB images, got shape \(8, 8, 1",
        ),
    ],
)
def test_mistakes_before_anything_is_trained(methods, budgets, overrides, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        benchmark(DIGITS, methods, budgets, [0], tmp_path / "w", overrides)
    assert not (tmp_path / "w").exists()


@pytest.fixture
def built(monkeypatch):
    """The names of the runs that are built without their data."""
    found, build = [], sweep.blank_loop
    monkeypatch.setattr(sweep, "blank_loop", lambda config, *rest: found.append(config.name) or build(config, *rest))
    return found


def small_jobs(methods, budgets, seeds, workdir):
    recipes = read_recipes(DIGITS, methods)
    for path, value in SMALL.items():
        override(recipes, path, value)
    return list(jobs(recipes, budgets, seeds, workdir))


def test_what_differs_in_seeds_and_labels_is_checked_once(tmp_path, built):
    """200 runs cost what one seed of one budget does; what has results, nothing."""
    every, dataset = small_jobs(["hard_negative", "distillation"], (1, 4, 25, 100, "all"), range(8), tmp_path), digits()
    sweep.check(every, dataset)
    assert len(every) == 168
    assert built == ["hard_negative", "supervised", "hard_negative + finetune", "distillation"]
    for job in every:
        if job.folder.name != "distillation":
            job.folder.mkdir(parents=True)
            (job.folder / "results.json").write_text("{}")
    sweep.check(every, dataset)
    assert built[4:] == ["distillation"]


def test_a_teacher_that_is_not_there_yet(tmp_path):
    """It is built as its own run, which comes before, has it; any other must be there."""
    every = small_jobs(["simclr", "distillation"], (1,), [0], tmp_path)
    sweep.check(every, digits())
    pupil = every[-1]._replace(config=every[-1].config | {"teacher": str(tmp_path / "elsewhere")})
    with pytest.raises(ConfigError, match=r"elsewhere: no config.json"):
        sweep.check([pupil], digits())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"phases": ({}, {"steps": 1, "refresh_every": 1}, {"batch": {"labelled": 0, "unlabelled": 8}})},
            "labelled = 0",
        ),
        ({"evals": {"head": {}}, "batch": {"labelled": 0, "unlabelled": 8}}, r"config.batch.labelled = 0: supervised"),
    ],
)
def test_a_phase_that_cannot_run(change, message, tmp_path):
    job = next(job for job in small_jobs(["simclr"], (1,), [0], tmp_path) if job.folder.name == "supervised")
    with pytest.raises(ConfigError, match=f"supervised: .*{message}"):
        sweep.check([job._replace(config=job.config | change)], digits())


def test_an_eval_of_what_is_not_trained(tmp_path):
    job = small_jobs(["simclr"], (1,), [0], tmp_path)[0]
    with pytest.raises(ConfigError, match=r"simclr: config.evals.head: contrastive trains no head"):
        sweep.check([job._replace(config=job.config | {"evals": {"head": {}}})], digits())


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("{'name': 'crop_flip', 'flip': True}", {"name": "crop_flip", "flip": True}),
        ('{"name": "crop_flip", "flip": true, "x": null}', {"name": "crop_flip", "flip": True, "x": None}),
        ("1e-3", 1e-3),
        ("(4, 4)", (4, 4)),
        ("true", True),
        ("data/a=b", "data/a=b"),
    ],
)
def test_values_of_overrides(word, value):
    found = command.changes([f"x={word}"])["x"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ({"labels": ["1", "0"]}, "--labels=0: must be a number of labels a class, 1 or more, or all"),
        ({"override": ["steps"]}, "--override=steps: must be PATH=VALUE, as in steps=1000"),
        ({"override": ["model={name:conv3}"]}, "--override=model={name:conv3}: neither Python nor JSON, as in {'name'"),
        ({"override": ["data.image_size=big"]}, "config.data.*image_size"),
    ],
)
def test_mistakes_in_flags(flag, message, tmp_path):
    given = {"data": "digits", "methods": ["simclr"], "labels": ["1"], "override": [], "backbone": ""}
    given |= {"seeds": 1, "first_seed": 0, "augment": "data", "weak": [], "draw": ["balanced"]}
    with pytest.raises(ConfigError, match=message):
        _main(types.SimpleNamespace(**given | flag), tmp_path)


def test_a_sweep_is_shared_by_seeds(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(sys.modules["labelfx.compare"], "compare", lambda *_, seeds, **__: taken.append(list(seeds)))
    given = {"data": "digits", "methods": ["simclr"], "labels": ["1"], "override": [], "backbone": ""}
    given |= {"augment": "data", "weak": [], "draw": ["balanced"]}
    for share in ({"first_seed": 0, "seeds": 3}, {"first_seed": 3, "seeds": 2}):
        _main(types.SimpleNamespace(**given | share), tmp_path)
    assert taken == [[0, 1, 2], [3, 4]]


@pytest.fixture
def compilation_cache(tmp_path):
    """Both seeds and, where the shapes agree, all methods share their compiled programs."""
    settings = {"jax_compilation_cache_dir": str(tmp_path / "cache"), "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_small_benchmark(tmp_path, compilation_cache):
    """Figures of the page are found again from the results; what is done is not done again."""
    workdir = tmp_path / "sweep"
    arguments = (DIGITS, ["hard_negative", "distillation"], (1, 4), (0, 1), workdir, SMALL)
    page = benchmark(*arguments)
    results = {path.parent: json.loads(path.read_text()) for path in workdir.rglob("results.json")}
    assert len(results) == 18 and page == workdir / "report.html"
    assert {"Label budget", "Labels saved", "In plain words"} <= set(re.findall(r"[A-Z][a-z ]+", page.read_text()))

    def found(name, k, metric="head"):
        folders = [workdir / f"seed_{seed}" / f"{k}_per_class" / name for seed in (0, 1)]
        return np.array([results[folder]["metrics"][metric]["accuracy"] for folder in folders])

    def seconds(name, k):
        return [results[workdir / f"seed_{seed}" / k / name]["training"]["seconds"] for seed in (0, 1)]

    # Where between one and four labels a class, over the logarithm of their number, is what `supervised` has with 40?
    markdown = page.with_suffix(".md")
    saved = {line[0]: line[1] for line in numbers(markdown, "## Labels saved")}
    cost = {line[0]: line[-1] for line in numbers(markdown, "## Results")}
    target = found("supervised", 4).mean()
    assert saved[""] == "40 labels" and saved["supervised, head"] == f"{100 * target:.2f} %"
    for title, name, metric in (
        ("hard_negative, linear_probe", "hard_negative_probe", "linear_probe"),
        ("hard_negative + finetune, head", "hard_negative_finetune", "head"),
        ("distillation, head", "distillation", "head"),
    ):
        low, high = (found(name, k, metric).mean() for k in (1, 4))
        between = 10 * 4 ** ((target - low) / (high - low)) if low < target <= high else 0
        expected = "≤ 10" if low >= target else f"{float(f'{between:.2g}'):.0f}" if between else "> 40"
        assert saved[title].startswith(f"{expected} ("), title

    pretrained = np.tile(seconds("hard_negative", "."), 2)
    tuned = np.array(
        seconds("hard_negative_finetune", "1_per_class") + seconds("hard_negative_finetune", "4_per_class")
    )
    own = np.array(seconds("distillation", "1_per_class") + seconds("distillation", "4_per_class"))
    assert float(cost["hard_negative, linear_probe"]) == pytest.approx(pretrained.mean(), rel=1e-3)
    assert float(cost["hard_negative + finetune, head"]) == pytest.approx((pretrained + tuned).mean(), rel=1e-3)
    assert float(cost["distillation, head"]) == pytest.approx((pretrained + tuned + own).mean(), rel=1e-3)
    assert cost["raw_pixels"] == "0"

    def written():
        return {path: path.stat().st_mtime_ns for path in workdir.rglob("results.json")}

    before, kept = written(), numbers(markdown, "## Labels saved")
    again = workdir / "seed_1" / "4_per_class" / "distillation" / "results.json"
    again.unlink()
    page.unlink()
    assert benchmark(*arguments).exists()
    assert {path for path, when in written().items() if before[path] != when} == {again}
    assert numbers(markdown, "## Labels saved") == kept

    other = r"holds a run of another configuration: config.steps \(2 there, 3 now\)"
    with pytest.raises(ConfigError, match=other):
        benchmark(*arguments[:-1], SMALL | {"steps": 3})

    # Elsewhere the runs that a network started from are not in the folders that it names: they are found beside it.
    moved = tmp_path / "moved"
    before = {line[0]: line[-1] for line in numbers(markdown, "## Results")}
    shutil.move(workdir, moved)
    report([moved], tmp_path / "moved.html")
    assert {line[0]: line[-1] for line in numbers(tmp_path / "moved.md", "## Results")} == before


WORDS = {"refund": "money back please", "card": "my card is lost", "login": "password does not work"}


@pytest.fixture
def sentences(tmp_path):
    """`data` of a CSV file of 120 sentences in three classes, as the command takes it."""
    rng = np.random.default_rng(0)
    names = list(WORDS)
    lines = [f"{WORDS[names[i % 3]]} {' '.join(rng.choice(list('abcdefg'), 3))},{names[i % 3]}" for i in range(120)]
    (tmp_path / "own.csv").write_text("\n".join(["text,intent", *lines]))
    of = {"inputs": ("text",), "vocab_size": 300, "max_length": 16, "labels": ("intent",), "task": "class"}
    return {"name": f"csv:{tmp_path / 'own.csv'}", **of, "test": "20%", "test_seed": 0}


def test_nodes_of_a_graph(tmp_path, capsys, compilation_cache):
    """Seven cliques of ten papers, each of a field, with words that say little. The baseline is a network of nodes, its
    floors are the words and the edges."""
    rng, field = np.random.default_rng(0), np.repeat(np.arange(7), 10)
    words = scipy.sparse.csr_matrix(rng.random((70, 12)) < 0.3)
    edges = [(i, j) for i in range(70) for j in range(i) if field[i] == field[j]]
    nodes = dict(zip(("train_idx", "val_idx", "test_idx"), rng.permutation(70).reshape(7, 10), strict=False))
    parts = {"feat_data": words.data.astype(np.int8), "feat_indices": words.indices, "feat_indptr": words.indptr}
    np.savez(tmp_path / "cora.npz", feat_shape=words.shape, edges=edges, labels=field, **parts, **nodes)
    data = {"name": "planetoid:cora", "data_dir": str(tmp_path)}
    changes = {"steps": 20, "devices": 1, "batch.labelled": 16}
    page = benchmark(data, ["supervised"], (2,), [0], tmp_path / "w", changes)
    assert "supervised: the recipe gcn, as rows are nodes" in capsys.readouterr().err
    results = judged_in(tmp_path / "w")["seed_0/2_per_class/supervised"]["metrics"]
    assert results.keys() == {"head", "node_words", "label_propagation", "random_encoder"}
    assert results["label_propagation"]["accuracy"] > 0.9
    text = page.with_suffix(".md").read_text()
    assert "Without training any network here: random_encoder, node_words, label_propagation." in text
    assert "raw_pixels" not in text
    recipes = read_recipes(data, ["fixmatch", "gcn"])
    own = dict(recipes["gcn"])
    adapt(recipes, data_of(data))
    assert recipes["gcn"] == own and recipes["fixmatch"]["model"] == own["model"]


def data_of_several(folder):
    """`data` of 120 vectors with four labels, each of which a column tells."""
    x = np.random.default_rng(0).normal(size=(120, 6))
    y = (x[:, :4] > [[0.0, 0.2, 0.5, 1.0]]).astype(np.uint8)
    np.savez(folder / "yeast.npz", X=x, Y=y, label_names=np.array(["a", "b", "c", "d"]))
    return {"name": "multilabel:yeast", "data_dir": str(folder), "seed": 0}


@pytest.fixture
def yeast(tmp_path):
    return data_of_several(tmp_path)


def judged_in(workdir):
    """Folder below `workdir` -> its results."""
    found = {path.parent: json.loads(path.read_text()) for path in workdir.rglob("results.json")}
    return {folder.relative_to(workdir).as_posix(): results for folder, results in found.items()}


def test_sentences_of_ones_own(sentences, tmp_path, capsys, compilation_cache):
    """A network that reads them, no augmentation, and logistic regression on their words for a floor."""
    changes = {"steps": 3, "model.width": 8, "optimizer.schedule.warmup_steps": 0, "devices": 1}
    changes |= {"method.projector.hidden": (), "batch.unlabelled": 16}
    page = benchmark(sentences, ["hard_negative"], (2,), [0], tmp_path / "w", changes)
    told = capsys.readouterr().err
    assert "supervised: the recipe own_sentences, as rows are texts" in told
    assert "hard_negative: the model mean_pool (" in told and "augmentation of every row: identity" in told
    runs = judged_in(tmp_path / "w")
    results = runs["seed_0/2_per_class/supervised"]
    assert {"head", "tfidf_probe", "random_encoder"} == results["metrics"].keys()
    assert results["labels"]["n"] == 6 and "weak" not in results["labels"]
    assert "linear_probe" in runs["seed_0/2_per_class/hard_negative_probe"]["metrics"]
    text = page.with_suffix(".md").read_text()
    assert "Without training any network here: random_encoder, tfidf_probe." in text and "24 test rows:" in text
    assert "96 training texts, 24 test texts, 3 classes." in text and "my card is lost" in text
    assert "raw_pixels" not in text
    one = report([tmp_path / "w" / "seed_0" / "2_per_class" / "supervised"], tmp_path / "one.html")
    assert "<img" not in one.read_text() and re.search("test/[0-9]+: (my card|money|password)", one.read_text())
    assert {"Confusion matrix", "Reliability", "PCA"} <= set(re.findall(r'aria-label="([^"]*)"', one.read_text()))


def test_several_labels_under_kinds_of_them(yeast, tmp_path, capsys, compilation_cache):
    """Rows are counted, mean average precision is the result, and each kind of labels has its own rows and figures."""
    changes = {"steps": 3, "model.hidden": (4,), "optimizer.schedule.warmup_steps": 0, "devices": 1}
    changes |= {"method.projector.hidden": (), "batch.unlabelled": 16}
    kinds = ["keep_entries:0.5", "keep_entries:1"]
    page = benchmark(yeast, ["hard_negative"], (10, "all"), [0], tmp_path / "w", changes, weak=kinds)
    assert "objective binary_cross_entropy (unknown=ignore)" in capsys.readouterr().err
    runs = judged_in(tmp_path / "w")
    assert len(runs) == 1 + 2 * 2 * 3
    half, whole = (runs[f"seed_0/10_rows_keep_entries_{share}/supervised"] for share in ("0.5", "1"))
    assert half["labels"]["rows_hash"] == whole["labels"]["rows_hash"] and half["labels"]["n"] == 10
    assert half["labels"]["entries"] < whole["labels"]["entries"] == 40
    assert half["labels"]["weak"] == {"name": "keep_entries", "fraction": 0.5}

    text = page.with_suffix(".md").read_text()
    for kind in ("keep_entries 0.5", "keep_entries 1"):
        assert all(f"{part}, {kind}" in text for part in ("**Label budget", "## Labels saved"))
        assert re.search(rf"\*\*With 10 labelled rows, {kind}(\.0)?\*\*: undecided: one seed", text)
    assert "| with 10 labelled rows | mAP in % |" in text and "test images" not in text
    assert "Without training any network here: prevalence." in text
    assert numbers(page.with_suffix(".md"), "## The data")[0] == ["label", "training", "test"]
    thirds = numbers(page.with_suffix(".md"), "of the rarest third:")
    assert thirds[0] == ["", "labelled rows", "head", "medium", "tail", "n"]
    maps = [half["metrics"]["multilabel"][f"{name}_mAP"] for name in ("head", "medium", "tail")]
    assert ["supervised, multilabel, keep_entries 0.5", "10", *(f"{100 * each:.2f}" for each in maps), "1"] in thirds
    pictures = [page.with_name(name).read_text() for name in ("report.svg", "report_2.svg")]
    assert all(">mAP in %<" in each and ">labelled rows<" in each for each in pictures)
    one = report([tmp_path / "w" / "seed_0" / "10_rows_keep_entries_1" / "supervised"], tmp_path / "one.html")
    assert "no classes to test, so there is no confusion matrix" in one.read_text()


def test_what_suits_the_rows_and_the_labels(sentences, yeast):
    """A network that reads them stays, and so does an objective of the task; floors are those of the rows."""
    recipes = read_recipes(sentences, ["own_sentences", "fixmatch"])
    dataset = data_of(sentences)
    own = dict(recipes["own_sentences"])
    lines = adapt(recipes, dataset)
    assert recipes["own_sentences"] == own and [line.partition(":")[0] for line in lines] == ["supervised", "fixmatch"]
    assert recipes["supervised"] == own | {"name": "supervised"} and recipes["fixmatch"]["model"] == own["model"]
    assert list(judge(dataset).floors) == ["tfidf_probe", "random_encoder"]
    recipes = read_recipes(sentences, ["regression"])  # an mlp would take ids for numbers
    with jax.numpy_dtype_promotion("standard"):  # as outside of tests
        adapt(recipes, dataset)
    assert recipes["regression"]["model"] == own["model"]

    recipes, dataset = read_recipes(yeast, ["regression"]), data_of(yeast)
    adapt(recipes, dataset)
    assert recipes["supervised"]["model"]["name"] == "mlp"
    assert {recipe["method"]["objective"]["name"] for recipe in recipes.values()} == {"binary_cross_entropy"}
    assert judge(dataset).head == {"multilabel": {"threshold": 0.5, "k": (1, 3)}} and not judge(dataset).floors

    recipes, dataset = read_recipes(DIGITS, METHODS), digits()
    before = copy.deepcopy(recipes)
    assert adapt(recipes, dataset) == [] and recipes == before
    assert judge(dataset).floors == {"raw_pixels": {}, "random_encoder": {}}


def test_a_method_of_classes_is_refused_for_several_labels(yeast, tmp_path):
    with pytest.raises(ConfigError, match=r"fixmatch: config.method: "):
        benchmark(yeast, ["fixmatch"], (10,), [0], tmp_path / "w", {"batch.unlabelled": 16})
    assert not (tmp_path / "w").exists()


def test_targets_are_judged_by_their_error(tmp_path):
    """Nothing judges features alone, so pre-training is fine-tuned only."""
    recipes, dataset = read_recipes({"name": "diabetes"}, ["simclr"]), data_of({"name": "diabetes"})
    adapt(recipes, dataset)
    every = list(jobs(recipes, (20, "all"), [0], tmp_path, dataset.task, judge(dataset)))
    names = [job.folder.relative_to(tmp_path / "seed_0").as_posix() for job in every]
    expected = [
        f"{budget}/{name}" for budget in ("20_rows", "all_labels") for name in ("supervised", "simclr_finetune")
    ]
    assert sorted(names) == sorted(["simclr", *expected])
    views = [job.config["labels"] for job in every if job.folder.parent.name == "20_rows"]
    assert views == 2 * [{"name": "uniform", "n": 20}]
    with pytest.raises(ConfigError, match="--methods=supervised_contrastive: trains no regressor"):
        recipes = read_recipes({"name": "diabetes"}, ["supervised_contrastive"])
        list(jobs(recipes, (20,), [0], tmp_path, dataset.task, judge(dataset)))


def data_of(data):
    config = read_recipes(data, [])["supervised"] | {"labels": {"name": "all_labels"}, "evals": {}}
    return load_data(configs.check(config), Path("nowhere"))[0]


def test_what_is_said_is_checked_for_every_kind_before_training(tmp_path):
    """A kind that does not say what an objective reads is named, whichever kind comes first."""
    config = read_recipes(DIGITS, ["partial_labels"])["partial_labels"]
    config |= {"seed": 0, "label_seed": 0, "data_seed": 0, "evals": {}}
    config["model"] = {"name": "mlp", "hidden": (4,), "dtype": "float32"}
    every = [
        Job(tmp_path / kind, config | {"labels": label_view("all") | {"weak": weak_label(kind)}})
        for kind in ("partial:0.2", "noisy_rest:0.2")
    ]
    check(every[:1], digits())
    with pytest.raises(ConfigError, match="partial_labels: config.labels gives no 'candidates'"):
        check(every, digits())


def test_kinds_of_labels():
    assert weak_label("symmetric:0.2") == {"name": "symmetric", "rate": 0.2}
    assert weak_label("complementary:1") == {"name": "complementary", "count": 1}  # a matrix is not needed
    assert weak_label("single_positive") == {"name": "single_positive"}
    every = list(jobs(read_recipes(DIGITS, ["moco"]), (4,), [0], Path("/w"), weak=[weak_label("symmetric:0.2"), None]))
    said = {job.folder.as_posix(): job.config["labels"].get("weak") for job in every}
    assert said["/w/seed_0/moco"] is None and said["/w/seed_0/4_per_class/moco_finetune"] is None
    noisy = {place for place, weak in said.items() if weak == {"name": "symmetric", "rate": 0.2}}
    assert noisy == {f"/w/seed_0/4_per_class_symmetric_0.2/{n}" for n in ("supervised", "moco_probe", "moco_finetune")}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("symetric:0.2", "--weak=symetric:0.2 = 'symetric': no such name.*did you mean 'symmetric'"),
        ("symmetric", "--weak=symmetric: symmetric needs rate; must be NAME:STRENGTH of a kind with one key"),
        ("asymmetric:0.4", "--weak=asymmetric:0.4: asymmetric needs flips, rate; must be NAME:STRENGTH"),
        ("single_positive:1", "--weak=single_positive:1: single_positive has no strength"),
        ("symmetric:2", "config.labels.weak.rate = 2"),
        ("symmetric:much", "config.labels.weak.rate = 'much'"),
        ("partial:0.3", "--weak=partial: says candidates, but supervised learns from labels"),
        ("keep_entries:2", "config.labels.weak.fraction = 2"),
    ],
)
def test_kinds_that_no_sweep_has(kind, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        benchmark(DIGITS, ["simclr"], [4], [0], tmp_path / "w", weak=[kind])
    assert not (tmp_path / "w").exists()


def test_a_kind_of_several_labels_for_classes(tmp_path):
    with pytest.raises(ConfigError, match="--weak=single_positive: not of these data"):
        benchmark(DIGITS, ["simclr"], [4], [0], tmp_path / "w", weak=["single_positive"])


def test_draws_of_labels(tmp_path):
    """Each in a folder of its own, with names of their own but for the first, whose folders are as ever."""
    draws = ["uniform", "balanced", "typiclust:/e/ncoder"]
    every = list(jobs(read_recipes(DIGITS, ["moco"]), (4, "all"), [0], Path("/w"), draws=draws, classes=10))
    views = {job.folder.as_posix(): (job.config["name"], job.config["labels"]) for job in every}
    assert len(views) == len(every) == 1 + 3 * 3 + 3
    assert views["/w/seed_0/4_per_class_uniform/supervised"] == ("supervised", {"name": "uniform", "n": 40})
    assert views["/w/seed_0/4_per_class/moco_probe"] == ("moco, balanced", {"name": "per_class", "k": 4})
    name, view = views["/w/seed_0/4_per_class_typiclust__e_ncoder/moco_finetune"]
    query = {"name": "typiclust", "neighbours": 20, "max_clusters": 500}
    assert name == "moco + finetune, typiclust:/e/ncoder"
    assert view == {"name": "queried", "n": 40, "start": 10, "query": query, "encoder": "/e/ncoder"}
    with pytest.raises(ConfigError, match="--draw = 'typicust': no such name.*did you mean 'typiclust'"):
        benchmark(DIGITS, ["moco"], [4], [0], tmp_path / "w", draw=["typicust"])


@pytest.mark.slow
def test_a_page_of_draws(tmp_path):
    """What a strategy saves against a uniform draw, by the page; what was drawn first is what others are held to."""
    small = {path: value for path, value in SMALL.items() if "projector" not in path}
    how = {"overrides": small, "augment": "recipe", "draw": ["uniform", "typiclust"]}
    page = benchmark(DIGITS, ["supervised"], [1, 4], range(2), tmp_path, **how)
    text = page.with_suffix(".md").read_text()
    assert "Labelled rows were drawn uniformly at random; or by typiclust, in rounds." in text
    saved = text[text.index("## Labels saved") :]
    assert "| supervised, head |" in saved and re.search(
        r"\| supervised, typiclust, head \| [^|]*\d+ \(.* to .*\): ", saved
    )
    results = json.loads((tmp_path / "seed_0/4_per_class_typiclust/supervised/results.json").read_text())
    assert results["labels"]["view"] == "queried" and results["labels"]["n"] == 40


def test_every_method_starts_from_the_backbone_that_is_given():
    recipes = read_recipes({"name": "digits"}, ["fixmatch"])
    said, dataset = description_of(str(ENCODER)), digits()
    _, lines = start_from(recipes, str(ENCODER), said, dataset)
    paths = upper(said)
    assert lines == [f"low-rank updates of {', '.join(paths)} alone, as this machine has no accelerator"]
    assert {recipes[name]["model"]["lora"]["paths"] for name in ("supervised", "fixmatch")} == {paths}
    judged = judge(dataset)
    how = {"file": str(ENCODER), "image_size": 96}
    assert {name: recipe["model"]["frozen"] for name, recipe in recipes.items()} == {
        "supervised": False,
        "fixmatch": False,
        "frozen": True,
    }
    assert all(recipe["model"].items() >= how.items() for recipe in recipes.values())
    floors = floors_with(judged.floors, recipes["frozen"]["model"], dataset.task)
    assert floors == {"raw_pixels": {}, "pretrained": how}  # and no network that nobody has trained
    set_augmentations(recipes.values(), dataset.train.inputs)
    assert {recipe["method"].get("augment", {}).get("name") for recipe in recipes.values()} >= {"identity"}
    assert recipes["frozen"]["method"]["augment"] == {"name": "identity"}  # rows go through it once
    with pytest.raises(ConfigError, match=r"--backbone: /nowhere: no such file"):
        description_of("/nowhere")
