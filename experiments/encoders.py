"""Encoders read from files against the libraries that they come from, at full size, where PyTorch is installed.

    python -m experiments.encoders --workdir=DIR

needs torch, torchvision, timm and transformers. First parity: networks with random weights are written as their library
writes them, read by `labelfx.models.pretrained`, and compared at the size of the file and at another. Then speed: both
sides in a process of their own, on one core and the same, in turns; images a second of that core's time, so that other
work on the machine counts little. Figures are in `experiments/encoders/results.json` and, as tables, in `README.md`
beside it.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import common
from labelfx import config as configs
from labelfx.config import command
from labelfx.models import pretrained

HERE = Path(__file__).parent / "encoders"
LIBRARIES = ("torch", "torchvision", "timm", "transformers")
_SMALL = {"hidden_size": 384, "num_attention_heads": 6, "patch_size": 14, "image_size": 518}
_DINO3 = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_register_tokens": 4}
# What it is called in its library, arguments, pixels a side of the file's images and of others.
PARITY: tuple[tuple[str, dict[str, Any], int, int], ...] = (
    ("resnet18", {}, 224, 181),
    ("resnet34", {}, 224, 181),
    ("resnet50", {}, 224, 181),
    ("resnet101", {}, 224, 181),
    ("tf_efficientnet_lite0", {}, 224, 181),
    ("efficientnet_lite0", {}, 224, 181),
    ("tf_efficientnet_b0", {}, 224, 181),
    ("efficientnet_b0", {}, 224, 181),
    ("convnext_tiny", {}, 224, 181),
    ("convnext_small", {}, 224, 181),
    ("vit_tiny_patch16_224", {}, 224, 160),
    ("vit_base_patch16_224", {}, 224, 288),
    ("vit_small_patch14_dinov2", {}, 518, 224),
    ("vit_small_patch14_reg4_dinov2", {}, 518, 224),
    ("vit_base_patch16_siglip_224", {}, 224, 160),
    ("vit_base_patch32_clip_224", {}, 224, 288),
    ("vit_base_patch32_clip_quickgelu_224", {}, 224, 160),
    ("vit_small_patch16_dinov3", {}, 256, 224),
    ("ResNet", {}, 224, 181),
    ("ViT", {}, 224, 160),
    ("Dinov2", _SMALL, 518, 224),
    ("Dinov2WithRegisters", _SMALL, 518, 224),
    ("SiglipVision", {}, 224, 160),
    ("CLIPVision", {}, 224, 288),
    ("DINOv3ViT", _DINO3, 224, 256),
)
# timm's name, arguments, pixels a side, images a batch.
SPEED: tuple[tuple[str, dict[str, Any], int, int], ...] = (
    ("tf_efficientnet_lite0", {}, 128, 32),
    ("resnet50", {}, 128, 32),
    ("convnext_tiny", {}, 128, 16),
    ("vit_small_patch14_dinov2", {"img_size": 224}, 224, 8),
)
SIDES = ("labelfx", "torch", "torch, channels last")
ROUNDS = 5


def images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, size, size, 3)).astype(np.float32)


def parity(kind: str, arguments: dict[str, Any], size: int, other_size: int, place: Path) -> dict[str, Any]:
    """The largest difference of a feature over the largest feature, at each size."""
    from experiments import torch_encoders as other

    model, config = other.build(kind, arguments)
    other.save(model, config, other.torch.float32, place)
    file = pretrained.read(place)
    weights = file.weights()
    shutil.rmtree(place)
    network = pretrained.network(file.description, norm="stored", norm_groups=1, outputs="features", dtype=None)
    apply = jax.jit(lambda weights, x: network.apply(weights, x, train=False))
    errors = []
    for pixels in (size, other_size):
        x = images(2, pixels)
        theirs = other.features(model, x)
        errors.append(float(np.abs(apply(weights, x) - theirs).max() / np.abs(theirs).max()))
    library = "timm" if hasattr(model, "forward_head") else "transformers"
    return {
        "network": kind,
        "library": f"{library} {importlib.metadata.version(library)}",
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(weights["params"])),
        "sizes": [size, other_size],
        "errors": errors,
        "read": file.said,
    }


def speed(kind: str, arguments: dict[str, Any], size: int, batch: int, place: Path) -> list[dict[str, Any]]:
    """Images a second, seconds of the first call and peak memory of each side; one of them is PyTorch alone."""
    with contextlib.ExitStack() as stack:
        alone = {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
        sides = {name: stack.enter_context(common.new_process(**alone)) for name in SIDES}
        sides["torch"].submit(_write, kind, arguments, place).result()
        firsts = {
            name: each.submit(_build, name, kind, arguments, size, batch, place).result()
            for name, each in sides.items()
        }
        work = {name: functools.partial(_ask, each, batch) for name, each in sides.items()}
        rounds = common.interleave(work, ROUNDS)
        found = common.rows(rounds, network=kind, size=size, batch=batch)
        for row in found:
            row["first call s"] = firsts[row["side"]]
            row["peak GB"] = sides[row["side"]].submit(_peak).result()
    return found


def _ask(side: Executor, batch: int) -> float:
    return side.submit(_run, batch).result()


# From here on in a side's own process, which keeps what it measures.
_work: Callable[[], Any]
_before: float


def _write(kind: str, arguments: dict[str, Any], place: Path) -> None:
    from experiments import torch_encoders as other

    model, config = other.build(kind, arguments)
    other.save(model, config, other.torch.float32, place)


def _build(side: str, kind: str, arguments: dict[str, Any], size: int, batch: int, place: Path) -> float:
    """Makes the network and calls it once; the seconds of the call."""
    global _before, _work
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    x = images(batch, size)
    if side == "labelfx":
        ours = jnp.asarray(x)
        _before = _memory("VmRSS")
        file = pretrained.read(place)
        weights = jax.tree.map(jnp.asarray, file.weights())
        network = pretrained.network(file.description, norm="stored", norm_groups=1, outputs="features", dtype=None)
        apply = jax.jit(lambda weights, x: network.apply(weights, x, train=False))

        def work() -> None:
            apply(weights, ours).block_until_ready()

    else:
        from experiments import torch_encoders as other

        other.torch.set_num_threads(1)
        _before = _memory("VmRSS")
        layout = other.torch.channels_last if "last" in side else other.torch.contiguous_format
        model = other.build(kind, arguments)[0].to(memory_format=layout)
        theirs = other.torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).to(memory_format=layout)

        def work() -> None:
            with other.torch.inference_mode():
                model(theirs)

    _work = work
    Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory begins again
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _run(batch: int) -> float:
    begin = time.process_time()
    _work()
    return batch / (time.process_time() - begin)


def _peak() -> float:
    return _memory("VmHWM") - _before


def _memory(name: str) -> float:
    """GB of this process, as Linux counts."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024 / 1e9


def page(results: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        "# Encoders from files against the libraries they come from",
        "",
        "`python -m experiments.encoders`: networks of full size with random weights, written as timm or transformers"
        f" writes them and read by `labelfx.models.pretrained`. {versions}.",
        "",
        "Parity: the largest difference of a feature over the largest feature, two images, float32, at the size of the"
        " file and at another.",
        "",
        "| network | library | million parameters | pixels | error | other pixels | error |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in results["parity"]:
        (size, other), (error, error_other) = row["sizes"], row["errors"]
        lines.append(
            f"| {row['network']} | {row['library']} | {row['parameters'] / 1e6:.1f} | {size} | {error:.1e} |"
            f" {other} | {error_other:.1e} |"
        )
    lines += [
        "",
        "Speed: features of one batch on one core, images a second of that core's time; sides in turns, medians of"
        f" {ROUNDS} rounds and in brackets the lowest and highest, the ratio to labelfx in the same rounds. PyTorch"
        " runs eagerly, in both layouts of images. Memory is"
        " the peak of the process, less what it held before the network was made. The first call of labelfx compiles.",
        "",
        "| network | pixels | batch | side | images/s | ratio | first call s | peak GB |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in results["speed"]:
        found, ratio = row["images/s"], row["ratio"]
        lines.append(
            f"| {row['network']} | {row['size']} | {row['batch']} | {row['side']} | {found['median']:.1f}"
            f" ({found['low']:.1f} to {found['high']:.1f}) | {ratio['median']:.2f} | {row['first call s']:.1f} |"
            f" {row['peak GB']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main(values: Any) -> None:
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise FileNotFoundError(f"no package {', '.join(missing)}; pip install {' '.join(LIBRARIES)}")
    place = Path(values.workdir) / "files"
    found = [parity(*each, place) for each in PARITY]
    versions = {name: importlib.metadata.version(name) for name in ("jax", "torch", "timm", "transformers")}
    results = {
        "parity": found,
        "speed": [row for each in SPEED for row in speed(*each, place)],
        "versions": {"Python": platform.python_version(), **versions},
    }
    shutil.rmtree(place, ignore_errors=True)
    HERE.mkdir(exist_ok=True)
    configs.write_text(HERE / "results.json", json.dumps(results, indent=1) + "\n")
    configs.write_text(HERE / "README.md", page(results))


if __name__ == "__main__":
    command.run(main, config=False)
