"""A configuration is checked whole before any data is touched, and a mistake is one line that says where and what."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from recipes import CONFIGS, RECIPES, recipe, tiny

import labelfx
from labelfx import config as configs
from labelfx.config import NEUTRAL, ConfigError, check, compare


def leaves(tree, path=()):
    """(path of keys, value) of every dict entry, inner dicts included."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key), value
        if isinstance(value, dict) or isinstance(value, tuple) and value and isinstance(value[0], dict):
            yield from leaves(value, (*path, key))


def parent(config, path):
    for key in path[:-1]:
        config = config[key]
    return config


def dotted(path):
    return "config" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def remove(config, path, value):
    del parent(config, path)[path[-1]]


def rename(config, path, value):
    parent(config, path)[path[-1] + "x"] = parent(config, path).pop(path[-1])


def put(new):
    def mutate(config, path, value):
        parent(config, path)[path[-1]] = new(value)

    return mutate


number = lambda v: type(v) in (int, float)  # noqa: E731
MUTATIONS = {
    "deleted": (remove, lambda path, v: True),
    "renamed": (rename, lambda path, v: isinstance(path[-1], str)),
    "wrong type": (put(lambda v: object), lambda path, v: True),
    "string for number": (put(str), lambda path, v: number(v)),
    "None": (put(lambda v: None), lambda path, v: True),
    "negative": (put(lambda v: -abs(v) - 1), lambda path, v: number(v)),
    "NaN": (put(lambda v: math.nan), lambda path, v: number(v)),
    "infinite": (put(lambda v: math.inf), lambda path, v: number(v)),
    "huge": (put(lambda v: 10**40), lambda path, v: type(v) is int),
    "huge number": (put(lambda v: 1e30), lambda path, v: type(v) is float),
    "unknown name": (put(lambda v: v[:-1] + "q"), lambda path, v: path[-1] == "name" and len(path) > 1),
    "wrong nesting": (put(lambda v: {"inner": v}), lambda path, v: True),
    "flattened": (put(lambda v: 1), lambda path, v: isinstance(v, dict)),
}


@pytest.mark.parametrize("kind", MUTATIONS)
def test_twenty_mutations_of_each_kind(kind):
    """Each is refused in one line that names the place, or is accepted and stands in the checked configuration."""
    mutate, applies = MUTATIONS[kind]
    rng = np.random.default_rng(list(MUTATIONS).index(kind))
    places = [(name, p, v) for name in RECIPES for p, v in leaves(recipe(name)) if applies(p, v)]
    refused = 0
    for index in rng.choice(len(places), 20, replace=len(places) < 20):
        name, path, value = places[index]
        config = copy.deepcopy(recipe(name))
        if isinstance(parent(config, path), tuple):  # a phase as a whole
            continue
        mutate(config, path, value)
        try:
            checked = configs.plain(check(config))
        except ConfigError as error:
            refused += 1
            message = str(error)
            assert "\n" not in message
            place = dotted(path[:-1] if kind in ("renamed", "unknown name") else path)
            assert place in message or kind == "deleted" and dotted(path[:-1]) in message, message
            if kind == "renamed":
                assert f"did you mean {path[-1]!r}" in message or f"{path[-1]}x" in message, message
            continue
        found = parent(checked, path)
        if kind == "deleted":  # only what has a default, which the checked configuration then shows
            assert path[-1] in found or path[-2] == "evals" or isinstance(path[-2], int), path
        else:
            assert found[path[-1]] == parent(config, path)[path[-1]], path
    assert refused >= {"deleted": 1, "huge number": 5}.get(kind, 15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "config.method.objective.temperature = 0.0: must be a number > 0"),
        ({"tau_plus": 1.0}, "config.method.objective.tau_plus = 1.0: must be a number in [0, 1)"),
        ({"beta": math.nan}, "config.method.objective.beta = nan: must be a number >= 0"),
        ({"name": "hard_negatives"}, "did you mean 'hard_negative'?"),
        (
            {"tau": 0.1},
            "config.method.objective.tau: unknown key of hard_negative; did you mean 'tau_plus'? allowed: beta,",
        ),
        ({"name": "info_nce_queue"}, "config.method.objective.name = 'info_nce_queue': no such name"),
    ],
)
def test_the_line(changes, message):
    config = recipe("hard_negative")
    config["method"]["objective"] |= changes
    with pytest.raises(ConfigError) as error:
        check(config)
    assert message in str(error.value)


def test_an_integer_is_accepted_for_a_number_but_not_the_reverse():
    config = recipe("hard_negative")
    config["method"]["objective"]["beta"] = 1
    assert type(check(config).method["objective"]["beta"]) is float
    with pytest.raises(ConfigError, match="config.steps = 10.0"):
        check({**config, "steps": 10.0})
    with pytest.raises(ConfigError, match="config.seed = True"):
        check({**config, "seed": True})


@pytest.mark.parametrize("size", range(1, 21))
def test_batch_indivisible_by_the_mesh(size, tmp_path):
    config = tiny("hard_negative", devices=8, batch={"labelled": 0, "unlabelled": 8 * size - 1 - size % 7})
    with pytest.raises(ConfigError, match=r"config.batch.unlabelled = \d+: must be a multiple of the 8 devices"):
        labelfx.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"name": "per_class", "k": 5000}}, "config.labels: k = 5000: class"),
        ({"batch": {"labelled": 0, "unlabelled": 10**6}}, "config.batch.unlabelled = 1000000: more than the"),
        ({"batch": {"labelled": 16, "unlabelled": 0}}, "config.batch.unlabelled = 0: contrastive reads"),
        ({"batch": {"labelled": 0, "unlabelled": 0}}, "config.batch: both sizes are 0"),
        ({"devices": 9}, "config.devices = 9: this machine has 8"),
        ({"model": {"name": "conv3", "width": 2**20, "dtype": "float32"}}, "config.model: the state takes "),
        ({"model": {"name": "conv3", "width": 2**31 - 1, "dtype": "float32"}}, "config.m"),
        ({"backbone": "previous"}, "config.backbone = 'previous': contrastive takes no backbone"),
        ({"data": {"name": "npz:/nowhere.npz"}}, "config.data: "),
    ],
)
def test_what_only_the_data_can_tell(changes, message, tmp_path):
    with pytest.raises(ConfigError) as error:
        labelfx.train(tiny("hard_negative", **changes), tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "config.json").exists()  # corrected, the same command may use the same workdir


def test_another_configuration_in_the_same_workdir_is_refused(tmp_path):
    config = check(tiny("hard_negative"))
    compare(config, tmp_path)  # nothing there yet
    (tmp_path / "config.json").write_text(json.dumps(configs.plain(config)))
    compare(config, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["method"]["objective"]["beta"] == 1.0
    neutral = {
        "devices": 2,
        "fsdp": 2,
        "log_every": 7,
        "save_every": 9,
        "keep": 1,
        "workers": 1,
        "eval_every": 3,
        "name": "again",
        "steps_per_dispatch": 5,
        "data": {"name": "digits", "placement": "device"},
    }
    nested = {
        "config.data.data_dir",
        "config.data.labels_dir",
        "config.data.placement",
        "config.model.file",
        "config.model.remat",
        "config.method.objective.block_size",
    }
    assert {f"config.{name}" for name in neutral} - {"config.data"} | nested == set(NEUTRAL)
    compare(check(tiny("hard_negative") | neutral), tmp_path)
    other = ConfigDict(tiny("hard_negative", seed=3))
    other.method.objective.beta = 0.25
    with pytest.raises(ConfigError) as error:
        compare(check(other), tmp_path)
    assert "config.method.objective.beta" in str(error.value) and "config.seed" in str(error.value)
    assert "config.steps" not in str(error.value)


def test_what_cannot_change_a_result_may_change_in_a_phase_too():
    config = tiny("hard_negative")
    method = config["method"]

    def fields(**objective):
        changed = method | {"objective": method["objective"] | objective}
        return configs.what_matters(check({**config, "method": changed, "phases": ({"method": changed},)}))

    assert fields(block_size=7) == fields()
    assert fields(beta=0.25) != fields()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid_and_says_how_to_run_it(name):
    check(recipe(name))
    text = (Path(__file__).parents[1] / "configs" / f"{name}.py").read_text()
    assert f"python -m labelfx.train --config={name} --workdir=/tmp/labelfx/{name}" in text.split('"""')[1]


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda path: path.stem)
def test_the_number_of_steps_of_a_recipe_is_that_of_its_first_phase(path):
    """One that the phases override would be ignored without a word."""
    changed = configs.phases(check(recipe(path.relative_to(CONFIGS).with_suffix("").as_posix()) | {"steps": 12_345}))
    assert changed[0]["steps"] == 12_345


def test_a_folder_is_no_recipe(tmp_path, monkeypatch):
    """A workdir may have the name of the recipe that it is of."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moco").mkdir()
    assert labelfx.recipe("moco")["name"] == "moco" and Path(configs.locate("moco")).name == "moco.py"
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match="^empty.py: has no function get_config$"):
        labelfx.recipe("empty.py")


def test_a_recipe_with_changes():
    config = labelfx.recipe("moco", {"steps": 7, "method.temperature": 0.25})
    assert config["steps"] == 7 and config["method"]["temperature"] == 0.25 and config["name"] == "moco"
    assert configs.check(config).steps == 7
    assert labelfx.recipe("moco")["steps"] != 7
    with pytest.raises(ConfigError, match=r"methd.temperature: not in moco; did you mean 'method'"):
        labelfx.recipe("moco", {"methd.temperature": 0.25})
    with pytest.raises(ConfigError, match="name.first: not in moco"):
        labelfx.recipe("moco", {"name.first": 0.25})
    with pytest.raises(ConfigError, match="config.method.temprature: unknown key of moco; did you mean 'temperature'"):
        labelfx.recipe("moco", {"method.temprature": 0.25})
    with pytest.raises(ConfigError, match="config.method.temperature = 0.0: must be a number > 0"):
        labelfx.recipe("moco", {"method.temperature": 0.0})
    labels = {"name": "fraction", "fraction": 0.5, "balanced": False}
    assert labelfx.recipe("moco", {"labels": labels})["labels"] == labels
    assert labelfx.recipe("moco", {"evals.recall_at_k": {"k": (1,)}, "eval_every": 7})["eval_every"] == 7


def test_a_config_file_may_return_a_recipe(tmp_path):
    (tmp_path / "own.py").write_text(
        "import labelfx\n\n\ndef get_config():\n    return labelfx.recipe('moco', {'steps': 7})\n"
    )
    found = labelfx.recipe(str(tmp_path / "own.py"), {"steps": 8, "method.momentum": 0.5})
    assert found == labelfx.recipe("moco", {"steps": 8, "method.momentum": 0.5})
