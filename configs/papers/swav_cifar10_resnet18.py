"""SwAV (Caron et al. 2020) on CIFAR-10, ResNet-18, as solo-learn trains it: 1000 epochs, batch 256.

    python -m labelfx.train --config=papers/swav_cifar10_resnet18 --workdir=DIR --config.data.data_dir=DIR

Published: 89.17 %, of a linear classifier trained beside the network (README of solo-learn, vturrisi/solo-learn).
Values are those of scripts/pretrain/cifar/swav.sh there, whose loss is half the objective's, so that its rate of 0.6 is
0.3 here and its weight decay of 1e-6 is 2e-6, which takes the very same steps. Its present swav.yaml blurs with
probability 0.5, here nothing does.

DIR holds CIFAR-10's binary version. Otherwise than there: a batch is assigned to the 3,000 prototypes by itself, there
from epoch 50 on beside a queue of 3,840 embeddings, which is likely to cost points; prototypes learn from the first
step, there they are frozen for two epochs, and have unit length, there a learnt one until 2022; only kernels have
clipped rates, there all parameters, which today's swav.yaml has changed; the rate ends at 0, there at 0.0006; the rest
is as for papers/simclr_cifar10_resnet18.
"""

from typing import Any

import labelfx


def get_config() -> dict[str, Any]:
    changes = {
        "name": "swav_cifar10_resnet18",
        "method": dict(
            name="swav",
            augment=dict(name="simclr", min_scale=0.08, flip=True, jitter_strength=1.0, grayscale=0.2, blur=0.0),
            projector=dict(name="projector", hidden=(2048,), features=128, batch_norm=True, dtype="float32"),
            prototypes=3000,
            temperature=0.1,
            epsilon=0.05,
            iterations=3,
        ),
        "optimizer.learning_rate": 0.3,
        "optimizer.weight_decay": 2e-6,
    }
    return labelfx.recipe("papers/simclr_cifar10_resnet18", changes)
