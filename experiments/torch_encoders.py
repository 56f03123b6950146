"""Networks of timm and of Hugging Face with random weights, in PyTorch: what `labelfx.models.pretrained` has to equal.

    python -m experiments.torch_encoders --out=tests/pretrained

writes the golden files of `tests/test_pretrained.py`, tiny networks and their features, and needs torch, torchvision,
timm and transformers, which no test needs. Weights of timm's networks are rounded to bfloat16 and stored so; those of
Hugging Face are float32. `provenance.json` says what made them.
"""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import transformers
from safetensors.torch import save_file
from timm.models.efficientnet import _gen_efficientnet, _gen_efficientnet_lite

from labelfx.config import command

SEED = 0
IMAGES = 48  # pixels a side of the stored images; smaller ones are their upper left corners

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
HUB = {"image_size": 16, "patch_size": 4, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
LITTLE = {"channel_multiplier": 0.1, "depth_multiplier": 0.1}
RESNET = {"layers": [1, 2, 1, 1], "channels": [8, 12, 16, 16]}
_Networks = dict[str, tuple[str, dict[str, Any], int, int]]
# Folder -> timm's name, arguments, and pixels a side of images of the file's own size and of another.
TIMM: _Networks = {
    "resnet18": ("resnet18", RESNET, 48, 39),
    "resnet50": ("resnet50", RESNET | {"channels": [4, 6, 8, 8]}, 48, 39),
    "convnext_tiny": ("convnext_tiny", {"depths": [1, 1, 2, 1], "dims": [8, 12, 16, 24]}, 48, 39),
    "tf_efficientnet_lite0": ("tf_efficientnet_lite0", LITTLE, 48, 39),
    "efficientnet_b0": ("efficientnet_b0", LITTLE, 48, 39),
    "vit": ("vit_tiny_patch16_224", VIT, 16, 24),
    "dinov2": ("vit_small_patch14_dinov2", VIT, 16, 8),
    "dinov2_registers": ("vit_small_patch14_reg4_dinov2", VIT, 16, 24),
    "dinov2_giant": ("vit_giant_patch14_dinov2", VIT, 16, 8),
    "siglip": ("vit_base_patch16_siglip_224", VIT, 16, 8),
    "clip": ("vit_base_patch16_clip_224", VIT, 16, 24),
    "clip_quickgelu": ("vit_base_patch16_clip_quickgelu_224", VIT, 16, 24),
    "dinov3": ("vit_small_patch16_dinov3", VIT, 16, 24),
    "dinov3_biased": ("vit_huge_plus_patch16_dinov3_qkvb", VIT, 16, 24),
}
# Folder -> what the configuration and model are called before `Config` and `Model`, and the same.
HUGGING_FACE: _Networks = {
    "hub_resnet": ("ResNet", {"embedding_size": 8, "hidden_sizes": [16, 16, 24, 32], "depths": [1, 2, 1, 1]}, 48, 39),
    "hub_vit": ("ViT", HUB | {"intermediate_size": 96}, 16, 24),
    "hub_dinov2": ("Dinov2", HUB, 16, 8),
    "hub_dinov2_registers": ("Dinov2WithRegisters", HUB | {"use_swiglu_ffn": True}, 16, 8),
    "hub_siglip": ("SiglipVision", HUB | {"intermediate_size": 96}, 16, 24),
    "hub_clip": ("CLIPVision", HUB | {"intermediate_size": 96}, 16, 8),
    "hub_dinov3": ("DINOv3ViT", HUB | {"intermediate_size": 96, "num_register_tokens": 4}, 16, 24),
}


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """With random weights of a size at which every part of the network tells; what comes before the first layer
    normalisation is small, so that what that adds to the variance does too."""
    random = torch.Generator().manual_seed(SEED)
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or "gamma" in name or "lambda" in name:
            value.uniform_(0.3, 1.2, generator=random)
        elif value.ndim == 1 and name.endswith("weight"):  # of a normalisation
            value.uniform_(0.7, 1.3, generator=random)
        elif name.endswith("bias") or name.endswith("running_mean"):
            value.normal_(0, 0.2, generator=random)
        elif name.endswith("weight") and value.ndim > 1:
            value.normal_(0, (1.4 if value.ndim == 2 else 1) * value[0].numel() ** -0.5, generator=random)
        elif value.is_floating_point():
            value.normal_(0, 0.5, generator=random)
        if name.startswith(("embeddings", "patch_embed", "pos_embed", "cls_token", "reg_token", "stem.0")):
            value.mul_(0.05)
    return model.eval()


def build(kind: str, arguments: Mapping[str, Any]) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A network of timm (`vit_small_patch14_dinov2`) or of Hugging Face (`Dinov2`), and its configuration."""
    torch.manual_seed(SEED)
    if hasattr(transformers, f"{kind}Config"):
        model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**arguments))
        return filled(model), json.loads(model.config.to_json_string())
    if "channel_multiplier" in arguments:
        little = _gen_efficientnet_lite if "lite" in kind else _gen_efficientnet
        born = {"bn_eps": 1e-3, "pad_type": "same"} if kind.startswith("tf_") else {}  # as timm's own function does
        model = little(kind, **arguments, **born, num_classes=0)
    else:
        sizes = {"dynamic_img_size": True} if kind.startswith("vit") else {}
        model = timm.create_model(kind, num_classes=0, **arguments, **sizes)
    told = model.pretrained_cfg
    kept = ("input_size", "interpolation", "mean", "std", "license")
    config = {"architecture": kind, "num_classes": 0, "model_args": arguments}
    config |= {"global_pool": model.global_pool} if kind.startswith("vit") else {}
    return filled(model), config | {"pretrained_cfg": {key: told[key] for key in kept if told.get(key)}}


def save(model: torch.nn.Module, config: Mapping[str, Any], dtype: torch.dtype, place: Path) -> None:
    """Writes `model.safetensors` and what configurations there are beside it, as their library does."""
    place.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(place)
        preprocessor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 3, "size": {"height": 32}}
        (place / "preprocessor_config.json").write_text(json.dumps(preprocessor) + "\n")
        return
    tensors = {name: value.to(dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def features(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """What the library gives to a classifier, [B, F], of normalised images [B, H, W, 3]."""
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        if hasattr(model, "forward_head"):
            return model.forward_head(model.forward_features(x), pre_logits=True).numpy()
        kind = model.config.model_type
        fixed = kind in ("vit", "siglip_vision_model", "clip_vision_model")
        found = model(x, **{"interpolate_pos_encoding": True} if fixed else {})
        return (found.last_hidden_state[:, 0] if kind == "vit" else found.pooler_output).numpy().reshape(len(x), -1)


def main(values: Any) -> None:
    out = Path(values.out)
    images = np.random.default_rng(SEED).integers(0, 256, (2, IMAGES, IMAGES, 3), dtype=np.uint8)
    np.savez_compressed(out / "images.npz", images=images)
    ready = (images / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    for folder, (kind, arguments, *sizes) in (TIMM | HUGGING_FACE).items():
        model, config = build(kind, arguments)
        model = model.to(torch.bfloat16).to(torch.float32) if folder in TIMM else model
        save(model, config, torch.bfloat16, out / folder)
        found: dict[str, Any] = {f"of_{size}": features(model, ready[:, :size, :size]) for size in sizes}
        np.savez(out / folder / "features.npz", **found)
    provenance = {"command": "python -m experiments.torch_encoders --out=tests/pretrained", "seed": SEED}
    versions = {each.__name__: each.__version__ for each in (torch, timm, transformers, np)}
    provenance |= {"python": platform.python_version()} | versions
    (out / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")


if __name__ == "__main__":
    command.run(main, config=False, strings={"out": "the folder of the golden files"})
