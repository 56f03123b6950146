"""VICReg (Bardes et al. 2022) on CIFAR-10, ResNet-18, as solo-learn trains it: 1000 epochs, batch 256.

    python -m labelfx.train --config=papers/vicreg_cifar10_resnet18 --workdir=DIR --config.data.data_dir=DIR

Published: 92.07 %, of a linear classifier trained beside the network (README of solo-learn, vturrisi/solo-learn).
Values are those of scripts/pretrain/cifar/vicreg.yaml there.

DIR holds CIFAR-10's binary version. Otherwise than there: no view is solarized, there each with probability 0.1;
saturation is jittered as much as brightness, there by half; the rest is as for papers/simclr_cifar10_resnet18.
"""

from typing import Any

import labelfx


def get_config() -> dict[str, Any]:
    changes = {
        "name": "vicreg_cifar10_resnet18",
        "method": dict(
            name="contrastive",
            augment=dict(name="simclr", min_scale=0.2, flip=True, jitter_strength=0.5, grayscale=0.2, blur=0.0),
            projector=dict(name="projector", hidden=(2048, 2048), features=2048, batch_norm=True, dtype="float32"),
            objective=dict(name="vicreg", invariance=25.0, variance=25.0, covariance=1.0),
        ),
        "optimizer.learning_rate": 0.3,
        "optimizer.weight_decay": 1e-4,
    }
    return labelfx.recipe("papers/simclr_cifar10_resnet18", changes)
