"""Barlow Twins (Zbontar et al. 2021) on CIFAR-10, ResNet-18, as solo-learn trains it: 1000 epochs, batch 256.

    python -m labelfx.train --config=papers/barlow_twins_cifar10_resnet18 --workdir=DIR --config.data.data_dir=DIR

Published: 92.10 %, of a linear classifier trained beside the network (README of solo-learn, vturrisi/solo-learn).
Values are those of scripts/pretrain/cifar/barlow.yaml there. Its loss is a tenth of the objective's (`scale_loss`), so
that its rate of 0.3 is 0.03 here and its weight decay of 1e-4 is 1e-3, which takes the very same steps. The weight of
redundancy is the 0.005 of July 2021, when the number appeared; today's is 0.0051.

DIR holds CIFAR-10's binary version. Otherwise than there: one augmentation makes both views, there one of the two is
solarized with probability 0.2; saturation is jittered as much as brightness, there by half; the rest is as for
papers/simclr_cifar10_resnet18.
"""

from typing import Any

import labelfx


def get_config() -> dict[str, Any]:
    changes = {
        "name": "barlow_twins_cifar10_resnet18",
        "method": dict(
            name="contrastive",
            augment=dict(name="simclr", min_scale=0.08, flip=True, jitter_strength=0.5, grayscale=0.2, blur=0.0),
            projector=dict(name="projector", hidden=(2048, 2048), features=2048, batch_norm=True, dtype="float32"),
            objective=dict(name="barlow_twins", redundancy=0.005),
        ),
        "optimizer.learning_rate": 0.03,
        "optimizer.weight_decay": 1e-3,
    }
    return labelfx.recipe("papers/simclr_cifar10_resnet18", changes)
