"""The SimCLR step in PyTorch: labelfx's networks, augmentation, objective and optimiser, as PyTorch runs them best.

Images are channels-last, the augmentation is batched on the device, the forward pass can be compiled, the optimiser is
fused, and on a GPU the forward pass is in bfloat16.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Conv3(nn.Sequential):
    """`labelfx.models.backbones.conv3` for 32x32 images."""

    def __init__(self, width: int):
        layers: list[nn.Module] = []
        for before, after in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [_conv(before, after, 3, 2), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Flatten())
        self.features = 64 * width


class ResNet18(nn.Sequential):
    """`labelfx.models.backbones.resnet18` with the "cifar" stem."""

    def __init__(self, width: int):
        layers: list[nn.Module] = [_conv(3, width, 3, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
        for stage in range(4):
            for block in range(2):
                after = width * 2**stage
                layers.append(_Block(before, after, 2 if stage > 0 and block == 0 else 1))
                before = after
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.features = 8 * width


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.layers = nn.Sequential(
            _conv(before, after, 3, stride),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            _conv(after, after, 3, 1),
            nn.BatchNorm2d(after),
        )
        changes = stride > 1 or before != after
        self.shortcut = (
            nn.Sequential(_conv(before, after, 1, stride), nn.BatchNorm2d(after)) if changes else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.layers(x) + self.shortcut(x), inplace=True)


def _conv(before: int, after: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, size // 2, bias=False)


BACKBONES: dict[str, Callable[[int], Any]] = {"conv3": Conv3, "resnet18": ResNet18}


def network(model: Mapping[str, Any], projector: Mapping[str, Any]) -> nn.Module:
    """The backbone and the projector of a configuration: 3 channels, one hidden layer with batch normalisation."""
    backbone = BACKBONES[model["name"]](model["width"])
    (hidden,) = projector["hidden"]
    head = (nn.Linear(backbone.features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
    return nn.Sequential(backbone, *head, nn.Linear(hidden, projector["features"]))


def augment(image: torch.Tensor, *, min_scale: float, jitter_strength: float, grayscale: float) -> torch.Tensor:
    """`labelfx.data.augment.simclr` with a flip and without blur. image: float [B, 3, H, W] in [0, 1]."""
    image = _random_resized_crop_and_flip(image, min_scale)

    def factor(low: float, high: float) -> torch.Tensor:
        return torch.empty(len(image), 1, 1, 1, device=image.device).uniform_(low, high)

    def chosen(probability: float) -> torch.Tensor:
        return torch.rand(len(image), 1, 1, 1, device=image.device) < probability

    low, high = max(0.0, 1 - 0.8 * jitter_strength), 1 + 0.8 * jitter_strength
    changed = _blend(torch.zeros_like(image), image, factor(low, high))
    changed = _blend(_luminance(changed).mean((1, 2, 3), keepdim=True), changed, factor(low, high))
    changed = _blend(_luminance(changed), changed, factor(low, high))
    turns = factor(-0.2 * jitter_strength, 0.2 * jitter_strength)
    image = torch.where(chosen(0.8), _turn_hue(changed, turns), image)
    return torch.where(chosen(grayscale), _luminance(image), image)


def _random_resized_crop_and_flip(image: torch.Tensor, min_scale: float) -> torch.Tensor:
    # Two small matrix products, as labelfx does; the flip is in one of them.
    count, size = len(image), image.shape[-1]
    area, ratio, top, left, flip = torch.rand(5, count, device=image.device)
    side, root = (min_scale + (1 - min_scale) * area).sqrt(), torch.exp((2 * ratio - 1) * math.log(4 / 3) / 2)
    height, width = size * (side / root).clamp(max=1), size * (side * root).clamp(max=1)
    pixel = torch.arange(size, device=image.device, dtype=image.dtype)

    def weights(start: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        source = (start[:, None] + (pixel + 0.5) * (length / size)[:, None] - 0.5).clamp(0, size - 1)
        return (1 - (source[:, :, None] - pixel).abs()).clamp(min=0)

    down, across = weights(top * (size - height), height), weights(left * (size - width), width)
    across = torch.where((flip < 0.5)[:, None, None], across.flip(1), across)
    return down[:, None] @ image @ across.transpose(1, 2)[:, None]


def _blend(base: torch.Tensor, image: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return torch.lerp(base.expand_as(image), image, factor).clamp(0, 1)


def _luminance(image: torch.Tensor) -> torch.Tensor:
    red, green, blue = image.split(1, 1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _turn_hue(image: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    red, green, blue = image.split(1, 1)
    value = image.amax(1, keepdim=True)
    chroma = value - image.amin(1, keepdim=True)
    divisor = torch.where(chroma == 0, 1, chroma)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    phases = [(offset + sixths + 6 * turns) % 6 for offset in (5, 3, 1)]
    return torch.cat([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in phases], 1)


def nt_xent(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """z: [2B, D], the first views of the images and then the second."""
    z = functional.normalize(z.float())
    scores = z @ z.T / temperature
    scores = scores.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -math.inf)
    target = torch.arange(len(z), device=z.device).roll(len(z) // 2)
    return functional.cross_entropy(scores, target)


class Steps:
    """The step of a configuration of SimCLR, again and again on one batch of images that lie on the device."""

    def __init__(self, config: Mapping[str, Any], images: np.ndarray, *, compiled: bool):
        method, device = config["method"], "cuda" if torch.cuda.is_available() else "cpu"
        batch = config["batch"]["unlabelled"]
        torch.set_float32_matmul_precision("high")
        net = network(config["model"], method["projector"]).to(device, memory_format=torch.channels_last)
        settings = {key: method["augment"][key] for key in ("min_scale", "jitter_strength", "grayscale")}
        # A copy: torch warns of arrays that may not be written.
        self.images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
        self.index = torch.arange(batch, device=device)
        decayed = [p for p in net.parameters() if p.ndim > 1]
        others = [p for p in net.parameters() if p.ndim <= 1]
        optimizer = config["optimizer"]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": optimizer["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
            lr=optimizer["learning_rate"],
            betas=(optimizer["b1"], optimizer["b2"]),
            fused=True,
        )
        autocast: Any = torch.autocast("cuda", torch.bfloat16) if device == "cuda" else contextlib.nullcontext()

        def loss(images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            image = images[index].float() / 255
            views = torch.cat([augment(image, **settings), augment(image, **settings)])
            with autocast:
                z = net((2 * views - 1).contiguous(memory_format=torch.channels_last))
            return nt_xent(z, method["objective"]["temperature"])

        self.loss = torch.compile(loss, dynamic=False) if compiled else loss
        self.net = net

    def __call__(self, count: int = 1) -> float:
        for _ in range(count):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(self.images, self.index)
            loss.backward()
            self.optimizer.step()
        return loss.item()  # waits for the device

    def parameters(self) -> int:
        return sum(p.numel() for p in self.net.parameters())


def peak_memory() -> float | None:
    """GB of the GPU, the most since this process began; None where there is none."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None


def convolution(batch: int, size: int, before: int, after: int, stride: int) -> Callable[[int], None]:
    """A 3x3 convolution with both of its gradients, so many times."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    layer = _conv(before, after, 3, stride).to(device, dtype, memory_format=torch.channels_last)
    image = torch.randn(batch, before, size, size, device=device, dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last).requires_grad_()

    def run(times: int) -> None:
        for _ in range(times):
            output = layer(image)
            gradients = torch.autograd.grad(output, (image, layer.weight), output)
        gradients[1].sum().item()  # waits for the device

    return run
