"""The published recipes of configs/papers: valid, documented, and of full size in shapes; none of them is run here."""

import importlib.util
import json
import re
from pathlib import Path

import jax
import pytest
from recipes import CONFIGS, recipe

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.hardware import blank, tpu
from labelfx.hardware.plans import compile_for, fits

PAPERS = sorted(path.stem for path in (CONFIGS / "papers").glob("*.py"))
QUICK = ("fixmatch_cifar10", "hard_negative_stl10", "meta_pseudo_labels_cifar10", "uda_cifar10")
# (image shape, classes, training images) of the data sets that labelfx does not know by name.
SHAPES = {
    "folder:imagenet": ((224, 224, 3), 1000, 1_281_167),
    "tfds:stl10": ((96, 96, 3), 10, 105_000),
    "tfds:svhn_cropped": ((32, 32, 3), 10, 73_257),
}
# torchvision's 11,689,512 of ResNet-18 and 25,557,032 of ResNet-50, and the 1,467,610 of WRN-28-2, less their
# classifiers of 1000 and 10 classes; a 3x3 stem has 64 * 3 * (7^2 - 3^2) less than one of 7x7.
BACKBONES = {
    ("resnet18", "cifar"): 11_689_512 - 513 * 1000 - 64 * 3 * 40,
    ("resnet50", "imagenet"): 25_557_032 - 2049 * 1000,
    ("resnet50", "cifar"): 25_557_032 - 2049 * 1000 - 64 * 3 * 40,
    ("wrn28", None): 1_467_610 - 129 * 10,
}


def docstring(name):
    return (CONFIGS / "papers" / f"{name}.py").read_text().split('"""')[1]


def full_size(name, tmp_path):
    """The checked recipe, its teacher an untrained ResNet-50, and the blank images of its data set."""
    config = recipe(f"papers/{name}")
    if config.get("teacher"):
        teacher = configs.plain(configs.check(recipe("papers/simclr_imagenet")))
        (tmp_path / "config.json").write_text(json.dumps(teacher))
        config["teacher"] = str(tmp_path)
    checked = configs.check(config)
    return checked, blank.blank_dataset(checked, *SHAPES.get(checked.data["name"], (None, None, None)))


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize("name", PAPERS)
def test_it_is_valid_and_says_how_to_run_it_and_what_is_published(name):
    checked = configs.check(recipe(f"papers/{name}"))
    text = docstring(name)
    command = re.search(r"python -m labelfx\.train --config=(\S+) --workdir=DIR", text)[1]
    assert configs.locate(command) == command or Path(configs.locate(command)).stem == name
    assert checked.name == Path(command).stem == name
    assert re.search(r"\d\.\d+ (\+- \d\.\d+ )?%", text)


@pytest.mark.parametrize("name", PAPERS)
def test_it_has_a_row_among_the_experiments(name):
    lines = (CONFIGS.parent / "experiments" / "README.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith(f"| papers/{name} |")]
    published = row.split(" | ")[1]
    numbers = re.findall(r"\d+\.\d+", published)
    assert numbers and set(numbers) <= set(re.findall(r"\d+\.\d+", docstring(name)))


@pytest.mark.parametrize("name", [name for name in PAPERS if recipe(f"papers/{name}")["batch"]["labelled"] == 0])
def test_it_sees_the_images_as_often_as_it_says(name, tmp_path):
    config, dataset = full_size(name, tmp_path)
    rows, batch = len(dataset.train.inputs), config.batch["unlabelled"]
    stated = [int(found) for found in re.findall(r"(\d+)\s+epochs", docstring(name))]
    assert any(config.steps in (e * (rows // batch), pytest.approx(e * rows / batch, rel=2e-3)) for e in stated)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in PAPERS]
)
def test_every_phase_steps_at_full_size(name, tmp_path):
    """In shapes alone, without compiling: the step takes the images and gives back a state like the one it took."""
    config, dataset = full_size(name, tmp_path)
    loop = blank.blank_loop(config, dataset, jax.devices()[:1])
    backbone = BACKBONES[config.model["name"], config.model.get("stem")]
    for index in range(len(configs.phases(config))):
        phase = loop.build(index)
        state = loop.shapes(phase)
        new, metrics = jax.eval_shape(phase.method.step, state, loop.example(phase, {}), loop.root)
        assert shapes(new) == shapes(state)
        assert metrics["loss"].shape == ()
        variables = jax.eval_shape(phase.method.variables, state)
        assert sum(x.size for x in jax.tree.leaves(variables["params"]["backbone"])) == backbone


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install 'labelfx[plan]'")
@pytest.mark.parametrize("name", PAPERS)
def test_it_fits_on_a_tpu_slice(name, tmp_path):
    """Shows the smallest slice of v5e that the compiler fits every phase on."""
    config, dataset = full_size(name, tmp_path)
    tpu.take_compiler()
    for shape in tpu.SLICES["v5e"]:
        try:
            rows = compile_for(config, dataset, f"v5e:{shape}")
        except ConfigError as error:
            pytest.fail(f"no slice fits: {error}")
        if fits(rows):
            break
    for row in rows:
        print(name, " | ".join(row.cells()))
    assert fits(rows)
