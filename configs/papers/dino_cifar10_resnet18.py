"""DINO (Caron et al. 2021) on CIFAR-10, ResNet-18, as solo-learn trains it: 1000 epochs, batch 256.

    python -m labelfx.train --config=papers/dino_cifar10_resnet18 --workdir=DIR --config.data.data_dir=DIR

Published: 89.52 %, of a linear classifier trained beside the student (README of solo-learn, vturrisi/solo-learn).
Values are those of scripts/pretrain/cifar/dino.yaml there, and of solo/methods/dino.py.

DIR holds CIFAR-10's binary version. Otherwise than there: the teacher's temperature is 0.07 throughout, there in July
2021 it rises from 0.04 in the first 50 epochs, which today's code does not; the prototypes learn from the first step,
there they are frozen for an epoch; the projector has ReLU, there GELU, and starts from larger weights; the evals read
the teacher; one augmentation makes both views, there one of the two is solarized with probability 0.2; saturation is
jittered as much as brightness, there by half; the rest is as for papers/simclr_cifar10_resnet18.
"""

from typing import Any

import labelfx


def get_config() -> dict[str, Any]:
    changes = {
        "name": "dino_cifar10_resnet18",
        "method": dict(
            name="dino",
            augment=dict(name="simclr", min_scale=0.08, flip=True, jitter_strength=0.5, grayscale=0.2, blur=0.0),
            projector=dict(name="projector", hidden=(2048, 2048), features=256, batch_norm=False, dtype="float32"),
            prototypes=4096,
            momentum=0.9995,
            final_momentum=1.0,
            student_temperature=0.1,
            teacher_temperature=0.07,
            center_momentum=0.9,
        ),
        "optimizer.learning_rate": 0.3,
        "optimizer.weight_decay": 1e-6,
    }
    return labelfx.recipe("papers/simclr_cifar10_resnet18", changes)
