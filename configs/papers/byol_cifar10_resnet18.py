"""BYOL (Grill et al. 2020) on CIFAR-10, ResNet-18, as solo-learn trains it: 1000 epochs, batch 256.

    python -m labelfx.train --config=papers/byol_cifar10_resnet18 --workdir=DIR --config.data.data_dir=DIR

Published: 92.58 %, of a linear classifier trained beside the network (README of solo-learn, vturrisi/solo-learn).
Values are those of scripts/pretrain/cifar/byol.yaml there. Where the number appeared, in July 2021, the loss was half
of today's and of the objective's, so that its rate of 1 is 0.5 here and its weight decay of 1e-5 is 2e-5, which takes
the very same steps.

DIR holds CIFAR-10's binary version. Otherwise than there: one augmentation makes both views, there one of the two is
solarized with probability 0.2; saturation is jittered as much as brightness, there by half; projector and predictor end
without a bias; the rest is as for papers/simclr_cifar10_resnet18.
"""

from typing import Any

import labelfx


def get_config() -> dict[str, Any]:
    changes = {
        "name": "byol_cifar10_resnet18",
        "method": dict(
            name="siamese",
            augment=dict(name="simclr", min_scale=0.08, flip=True, jitter_strength=0.5, grayscale=0.2, blur=0.0),
            projector=dict(name="siamese_mlp", hidden=(4096,), features=256, output_norm=False, dtype="float32"),
            predictor=dict(name="siamese_mlp", hidden=(4096,), features=256, output_norm=False, dtype="float32"),
            momentum=0.99,
            final_momentum=1.0,
            objective=dict(name="byol"),
        ),
        "optimizer.learning_rate": 0.5,
        "optimizer.weight_decay": 2e-5,
    }
    return labelfx.recipe("papers/simclr_cifar10_resnet18", changes)
