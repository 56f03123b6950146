"""Every recipe in configs/, and the smallest run of each that still does everything the recipe does."""

import atexit
import functools
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from labelfx import config as configs
from labelfx.config import plain
from labelfx.config.annotations import Part
from labelfx.data.sources import digits
from labelfx.data.stored import probe

CONFIGS = Path(__file__).parents[1] / "configs"
ENCODER = Path(__file__).parent / "pretrained" / "vit"  # a tiny one, of random weights
RECIPES = sorted(path.stem for path in CONFIGS.glob("*.py"))
AUGMENT = configs.names(Part("data.augment"))
METHODS = configs.names(configs.METHODS)
# A method of each kind of state for every run of the tests; the others are slow ones.
QUICK = ("consistency", "contrastive", "distillation", "inter_clr", "meta_pseudo_labels", "moco", "supervised")
# A recipe of each kind of rows and labels that a method with a recipe of its own name may be given: the battery runs it
# on its own data.
KINDS = (
    "ensemble_distillation",
    "finetune_pretrained",
    "frozen",
    "lora",
    "mixing",
    "multiple_instance",
    "partial_labels",
    "pasted_fixmatch",
    "pasted_pixels",
    "positive_unlabelled",
    "reinforced",
    "regression",
    "specialists",
)
BATTERY = [*METHODS, *KINDS]
QUICK_FIRST = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in METHODS]


def recipe(name: str) -> dict:
    """The configuration of a recipe as plain dicts."""
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = plain(module.get_config())
    if "file" in config["model"]:  # which nothing has by default
        # Where all is trained, one whose keys have no bias: its gradient is 0, and Adam makes steps of rounding.
        file = ENCODER.parent / "dinov3" if name == "finetune_pretrained" else ENCODER
        config["model"] |= {"file": str(file), "image_size": 16}
    soft = config["method"].get("soft_labels", {})
    if soft.get("name") == "stored":
        soft["file"] = stored_labels(json.dumps(config["method"]["augment"]))
    return config


@functools.cache
def stored_labels(augment: str) -> str:
    """A file of `labelfx.reinforce` for two views of the digits, from teachers that guess."""
    inputs, folder = digits().train.inputs, Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = np.zeros((len(inputs), 2), [("index", "<i2", 3), ("value", "<f2", 3)])
    kept["index"] = np.random.default_rng(0).random((*kept.shape, 10)).argsort(-1)[..., :3]
    kept["value"] = 0.6, 0.2, 0.1
    np.save(folder / "0.npy", kept)
    about = {"kind": "views", "rows": len(inputs), "classes": 10, "views": 2, "seed": 0, "shard_rows": len(inputs)}
    about |= {"shards": ["0.npy"], "augment": json.loads(augment), "jax": jax.__version__, "whole": True}
    about["probe"] = probe(configs.build(Part("data.augment"), json.loads(augment)), 0, inputs).tolist()
    (folder / "about.json").write_text(json.dumps(about))
    return str(folder)


def recipe_of(method: str) -> str:
    """A recipe with this method, of those that mine their batches if any does, and then the one of its name: every
    method has one. A kind is its own."""
    if method in KINDS:
        return method
    found = [name for name in RECIPES if name not in KINDS and recipe(name)["method"]["name"] == method]
    return min(found, key=lambda name: (recipe(name)["batches"]["name"] == "uniform", name != method))


def with_augment(method: dict, augment: dict, names: Sequence[str] = AUGMENT) -> dict:
    """The method's configuration with this augmentation in place of each of these names, in its parts too."""
    if method.get("name") in names:
        return augment
    return {k: with_augment(v, augment, names) if isinstance(v, dict) else v for k, v in method.items()}


def tiny(name: str, **changes) -> dict:
    """The recipe on a network and a number of steps that cost a second; its method, phases and miner as they are."""
    config = recipe(name)

    def shrink(phase: dict) -> dict:
        sizes = {k: 16 if v else 0 for k, v in phase["batch"].items()} if "batch" in phase else None
        phase = {**phase, **({"batch": sizes} if sizes else {}), **({"steps": 6} if "steps" in phase else {})}
        for part in ("method", "optimizer", "batches"):
            if part in phase:
                phase[part] = shorten(phase[part])
        if "method" in phase and name != "reinforced":  # the recipe's own augmentation takes longest to compile
            own = ("small_grey",) if name in KINDS else AUGMENT
            phase["method"] = with_augment(phase["method"], {"name": "crop_flip", "padding": 1, "flip": False}, own)
        if "method" in phase and name not in KINDS:
            phase["method"] |= {"pair": {"name": "halves"}} if "pair" in phase["method"] else {}  # no text here
        return phase

    def shorten(part: dict) -> dict:
        small = {
            "hidden": (16,),
            "features": 8,
            "width": 2,
            "queue_size": 32,
            "warmup_steps": 1,
            "clusters": 4,
            "group_size": 2,
            "threshold": 0.15,
            "hardest": 8,
            "predictor_steps": 0,
            "bags_per_batch": 2,
        }
        return {k: shorten(v) if isinstance(v, dict) else small.get(k, v) for k, v in part.items()}

    config = shrink(config)
    read = config["batches"]["name"] == "by_client" or config["method"]["name"] == "meta_correction"
    said = {"weak": config["labels"]["weak"]} if read else {}  # of a column without which it cannot be
    if name in KINDS:
        config["model"] = shorten(config["model"])
    else:
        config |= {
            "data": {"name": "digits"},
            "labels": {"name": "per_class", "k": 2} | said,
            "model": {"name": "conv3", "width": 2, "dtype": "float32"},
        }
    config |= {
        "phases": tuple(shrink(phase) for phase in config.get("phases", ())[:3]),
        "evals": {},
        "devices": 1,
        "log_every": 2,
        "save_every": 2,
    }
    return {**config, **changes}
