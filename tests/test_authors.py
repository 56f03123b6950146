"""Methods and other code outside of labelfx: found by every command, known again by its hash; what is wrong with it is
one line that names file and line."""

import importlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recipes import tiny

import labelfx
import labelfx.methods
from labelfx import config as configs
from labelfx.config import ConfigError, rooms

MLP = {"name": "mlp", "hidden": (4,), "dtype": "float32"}
MIXUP = {"name": "mixup", "augment": {"name": "own_noise", "size": 0.0}, "alpha": 0.2}
HELPER = "SCALE = 1.0\n\n\ndef scaled(x):\n    return SCALE * x\n"
AUGMENT = '''
from labelfx.data.augment import to_float


def own_noise(*, size: float):
    """Brighter by `size`."""
    return lambda rng, images: size + to_float(images)
'''
METHOD = '''"""Mixup (Zhang et al. 2018)."""

import jax
import jax.numpy as jnp

from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods._scale import scaled
from labelfx.models import stack
from labelfx.models.heads import linear
from labelfx.objectives.classification import cross_entropy
from labelfx.config.annotations import Augment, NonNegative


def mixup(model, tx, num_classes, *, augment: Augment, alpha: NonNegative):
    net = stack(backbone=model, head=linear(features=num_classes))

    def init(rng, batch):
        return state.create(net, tx, rng, batch["labelled"]["input"])

    def step(old, batch, rng):
        image = augment(rng, batch["labelled"]["input"])
        label = batch["labelled"]["label"]
        weight = jax.random.uniform(rng)

        def loss_fn(params):
            outputs, model_state = net.apply({"params": params, **old.model_state}, image, train=True, rng=rng)
            loss = cross_entropy(outputs["head"], label, label_smoothing=0.0)
            return scaled(loss * (1 + alpha * weight)), model_state

        (loss, model_state), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        return state.descend(old, tx, gradient, model_state), {"loss": loss}

    return Method(init, step, lambda state: state.variables)
'''


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder of LABELFX_PATH with a method, a helper of its, an augmentation and a recipe."""
    for where in rooms.ROOMS:  # as they were, after the test
        room = importlib.import_module(f"labelfx.{where}")
        monkeypatch.setattr(room, "__path__", [*getattr(room, "__path__", ())], raising=False)
    folder = tmp_path / "outside"
    write(folder / "methods/mixup.py", METHOD)
    write(folder / "methods/_scale.py", HELPER)
    write(folder / "data/augment/own.py", AUGMENT)
    recipe = f"    return labelfx.recipe('supervised', {{'method': {MIXUP}, 'steps': 30}})\n"
    write(folder / "configs/mixup.py", f'"""Mixup."""\n\nimport labelfx\n\n\ndef get_config():\n{recipe}')
    monkeypatch.setenv("LABELFX_PATH", str(folder))
    rooms._functions.cache_clear()
    yield folder
    rooms._functions.cache_clear()
    for name in [name for name, module in sys.modules.items() if str(folder) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def own(**changes):
    """Two steps of the recipe on a tiny network."""
    return tiny("supervised", model=MLP, method=MIXUP, steps=2, evals={"head": {}}, **changes)


def test_code_outside_is_found_and_known_again(outside, tmp_path, monkeypatch, caplog):
    run = tmp_path / "run"
    results = labelfx.train(own(), run)
    recorded = json.loads((run / "outside.json").read_text())
    assert list(recorded) == ["data/augment/own.py", "methods/_scale.py", "methods/mixup.py"]
    assert results["outside"] == recorded and all(len(value) == 64 for value in recorded.values())
    for way in (labelfx.evaluate, labelfx.load, lambda run: labelfx.report([run], tmp_path / "r.html")):
        with caplog.at_level(logging.WARNING):
            way(run)
    labelfx.features(run, "test", tmp_path / "f.npz")
    assert "other code" not in caplog.text and "mixup" in (tmp_path / "r.html").read_text()

    write(outside / "methods/_scale.py", HELPER.replace("1.0", "2.0"))  # only what the method imports
    message = r"methods/_scale.py \(sha256 \w{12} there, \w{12} now\)"
    with pytest.raises(ConfigError, match=f"run holds a run of other code: {message}; bring it back or use another"):
        labelfx.train(own(), run)
    for _ in range(2):
        labelfx.load(run)
    labelfx.evaluate(run)
    assert [record.message for record in caplog.records if "other code" in record.message] == [
        f"{run}: made with other code: methods/_scale.py (sha256 {recorded['methods/_scale.py'][:12]} there, "
        f"{configs.hashes(rooms.outside_files())['methods/_scale.py'][:12]} now)"
    ]

    (outside / "methods/mixup.py").unlink()
    kept = json.loads((run / "config.json").read_text())
    for way in (labelfx.load, labelfx.evaluate, lambda run: labelfx.train(kept, run)):
        with pytest.raises(ConfigError) as caught:
            way(run)
        assert str(caught.value).endswith(
            "config.method.name = 'mixup': no such name in labelfx.methods; the run was made with code outside of "
            f"labelfx (methods/mixup.py, sha256 {recorded['methods/mixup.py'][:12]}): set LABELFX_PATH to the folder "
            "that holds methods/mixup.py"
        )


def test_a_run_of_labelfx_alone_records_no_code(tmp_path):
    results = labelfx.train(tiny("supervised", model=MLP, steps=2), tmp_path)
    assert not (tmp_path / "outside.json").exists() and results["outside"] == {}


def test_the_commands_find_it(outside, tmp_path):
    """In processes of their own; and what fails in it while they run is one line."""
    broken = METHOD.replace("def mixup(", "def late(").replace("state: state.variables", "state: state.variable")
    write(outside / "methods/late.py", broken)
    small = ["--config.model={'name': 'mlp', 'hidden': (4,), 'dtype': 'float32'}", "--config.evals={'head': {}}"]

    def command(module, *words):
        arguments = [sys.executable, "-m", f"labelfx.{module}", *words]
        return subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, env=os.environ)

    found = command("train", "--config=mixup", "--workdir=run", "--config.method.alpha=0.5", *small)
    assert found.returncode == 0, found.stderr
    assert json.loads((tmp_path / "run/config.json").read_text())["method"]["alpha"] == 0.5
    found = command("train", "--config=mixup", "--workdir=late", "--config.method.name=late", *small)
    assert found.returncode == 1 and found.stderr.count("error: ") == 1 and "Traceback" not in found.stderr
    assert f"error: {outside}/methods/late.py:{len(broken.splitlines())}: AttributeError: " in found.stderr
    listed = command("list", "mixup")
    assert "mixup, one of recipes" in listed.stdout and "    alpha    a number >= 0\n" in listed.stdout


UNIFORM, ALPHA, JNP = "jax.random.uniform(rng)", "alpha: NonNegative", "import jax.numpy as jnp"
AT_BUILDER = {
    (ALPHA, "alpha"): "mixup: alpha has no annotation; must say what a config may give, as int, float",
    (ALPHA, "alpha: list[float]"): "mixup: alpha has list[float]; must say what a config may give",
    (ALPHA, "alpha: int | str"): "mixup: alpha has int | str; must say what a config may give",
    (ALPHA, "alpha: 'Nonnegative'"): "mixup: name 'Nonnegative' is not defined",
    ("num_classes, *", "classes, *"): "mixup: no run provides 'classes'; keys of a config stand after a *, and a run "
    "provides: did you mean 'num_classes'? allowed: backbone, classifier, model, num_classes, ",
}
AT_LINE = {
    (JNP, "import jax.nmpy"): "ModuleNotFoundError: No module named 'jax.nmpy'",
    (JNP, "import jax.numpy as"): "invalid syntax",
    (UNIFORM, "float(jax.random.uniform(rng))"): "config.method: Abstract tracer value encountered where concrete",
    (UNIFORM, "1 if jax.random.uniform(rng) > 0 else 0"): "config.method: Attempted boolean conversion of traced array",
    (UNIFORM, "jnp.ones(3) + jnp.ones(4)"): "config.method: add got incompatible shapes for broadcasting: (3,), (4,)",
    (UNIFORM, "cross_entropy(jnp.ones((3, 4)), label, label_smoothing=0.0)"): "config.method: ",
    (UNIFORM, "batch['labeled']"): "config.method: KeyError: 'labeled'",
    (UNIFORM, "batch['labelled']['image']"): "config.method: KeyError: 'image': it is batch[...]['input'] now",
    (UNIFORM, "jnpp.ones(3)"): "config.method: NameError: name 'jnpp' is not defined",
}
AT_STEP = {
    ("model_state), {", "model_state)._replace(params={'a': loss}), {"): "another state than it takes: state.params['",
    (', {"loss": loss}', ""): "a TrainState; must be (state, metrics), metrics a dict",
    ('{"loss": loss}', '{"loss": loss, "label": label}'): "the metric 'label' int32[16]; must be a scalar",
}


@pytest.mark.parametrize(
    ("change", "where", "message"),
    [(change, "def mixup", "AT: " + message) for change, message in AT_BUILDER.items()]
    + [(change, change[1], message) for change, message in AT_LINE.items()]
    + [(change, "def step", f"config.method: AT: the step returns {message}") for change, message in AT_STEP.items()],
)
def test_a_mistake_of_an_author_is_one_line(outside, tmp_path, change, where, message):
    config, file, text = own(), outside / "methods/mixup.py", METHOD.replace(*change)
    assert text != METHOD
    write(file, text)
    place = f"{file}:{1 + next(i for i, row in enumerate(text.splitlines()) if where in row)}"
    path, colon, rest = message.rpartition("config.method: ")
    expected = message.replace("AT", place) if "AT" in message else f"{path}{colon}{place}: {rest}"
    with pytest.raises(ConfigError) as caught:
        labelfx.train(config, tmp_path / "run")
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)
    assert not (tmp_path / "run/config.json").exists()


def test_a_file_without_its_function(outside, tmp_path):
    write(outside / "methods/mixup.py", METHOD.replace("def mixup(", "def mixups("))
    with pytest.raises(ConfigError) as caught:
        labelfx.recipe("mixup", {"steps": 1})
    assert str(caught.value).endswith(
        f"{outside}/methods/mixup.py: has no function 'mixup', which would build the method; did you mean 'mixups'? "
        "allowed: mixups"
    )


def test_what_labelfx_says_of_a_configuration_has_no_line_of_code(outside, tmp_path):
    """`simclr takes RGB images` is for the user of a method, whoever wrote it."""
    augment = labelfx.recipe("papers/simclr_cifar10")["method"]["augment"]
    config = own() | {"method": own()["method"] | {"augment": augment}}
    with pytest.raises(ConfigError, match="^config.method: simclr takes RGB images"):
        labelfx.train(config, tmp_path)


def test_functions_that_do_not_fit_say_so(outside):
    write(outside / "data/augment/other.py", "def other(images, *, size: float):\n    pass\n")
    config = own()
    config["method"]["augment"] = {"name": "other", "size": 1.0}
    with pytest.raises(ConfigError) as caught:
        configs.check(config)
    assert str(caught.value).startswith(
        "config.method.augment.name = 'other': no such name in labelfx.data.augment that takes nothing: "
        f"{outside}/data/augment/other.py:1 takes images; allowed: crop_flip, "
    )


def test_a_name_is_defined_once(outside, tmp_path):
    write(outside / "objectives/own.py", "def nt_xent(z_a, z_b):\n    pass\n")
    with pytest.raises(
        ConfigError, match=f"^{outside}/objectives/own.py:1: .*contrastive.py:.* is a 'nt_xent' of this room"
    ):
        rooms.functions("objectives")
    write(outside / "methods/moco.py", "")
    with pytest.raises(ConfigError, match=f"^{outside}/methods/moco.py: .*/moco.py is a method of this name already"):
        rooms.method_modules()
    (outside / "methods/moco.py").unlink()
    write(outside / "methods/family/__init__.py", "")
    write(outside / "methods/family/moco.py", "")
    with pytest.raises(ConfigError, match="moco.py: .*/methods/.*moco.py is a method of this name already"):
        rooms.method_modules()
    write(outside / "configs/moco.py", "")
    with pytest.raises(ConfigError, match=f"^{outside}/configs/moco.py: .*/configs/moco.py is a recipe of this name"):
        configs.locate("moco")


def test_methods_lie_in_families(outside):
    """A name is flat, is found without an import of the file, and the file is one module."""
    write(outside / "methods/family/__init__.py", "")
    write(outside / "methods/family/pi_model.py", "def pi_model(model, tx, *, weight: float):\n    pass\n")
    assert {"pi_model", "mixup", "moco"} <= set(configs.names(configs.METHODS))
    assert not {"family", "_scale"} & set(configs.names(configs.METHODS))
    assert "labelfx.methods.family.pi_model" not in sys.modules
    from labelfx.methods import pi_model

    assert pi_model is sys.modules["labelfx.methods.family.pi_model"] and "labelfx.methods.pi_model" not in sys.modules
    assert configs.function(configs.METHODS, "pi_model") is pi_model.pi_model
    with pytest.raises(ImportError, match="pi_modle"):
        from labelfx.methods import pi_modle  # noqa: F401


def test_a_path_that_holds_no_room_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LABELFX_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="^LABELFX_PATH: .*/nowhere: has no folder configs, methods, objectives, "):
        configs.names(configs.METHODS)


def test_an_installed_package_names_itself(tmp_path, monkeypatch):
    """By an entry point. Its modules keep the names that they have."""
    write(tmp_path / "mixing/__init__.py", "")
    write(tmp_path / "mixing/methods/__init__.py", "")
    write(tmp_path / "mixing/methods/cutmix.py", "def cutmix(model, tx, *, alpha: float):\n    pass\n")
    write(tmp_path / "mixing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: mixing\nVersion: 1.0\n")
    write(tmp_path / "mixing-1.0.dist-info/entry_points.txt", "[labelfx.rooms]\nown = mixing\n")
    monkeypatch.syspath_prepend(tmp_path)
    rooms._installed.cache_clear()
    try:
        builder = configs.function(configs.METHODS, "cutmix")
        assert builder.__module__ == "mixing.methods.cutmix"
        assert list(rooms.hashes(rooms.used_files([builder]))) == ["mixing/methods/cutmix.py"]
    finally:
        rooms._installed.cache_clear()


def test_no_file_is_two_modules_and_no_name_two_functions():
    """Of labelfx itself; `functions` refuses the latter."""
    every = [item for where in rooms.ROOMS for item in rooms.modules(where).items()]
    files = {}
    for name, file in every:
        assert files.setdefault(file, name) == name
    assert all(rooms.functions(where) for where in rooms.ROOMS if where != "methods")
    names = configs.names(configs.METHODS)
    packages = {
        name.rpartition(".")[2] for name, file in rooms.modules("methods").items() if file.name == "__init__.py"
    }
    assert not packages & set(names)
