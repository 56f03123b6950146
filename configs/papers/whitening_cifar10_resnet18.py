"""W-MSE (Ermolov et al. 2021) on CIFAR-10, ResNet-18, as solo-learn trains it: 1000 epochs, batch 256.

    python -m labelfx.train --config=papers/whitening_cifar10_resnet18 --workdir=DIR --config.data.data_dir=DIR

Published: 88.67 %, of a linear classifier trained beside the network (README of solo-learn, vturrisi/solo-learn).
Values are those of scripts/pretrain/cifar/wmse.sh there: Adam at 3e-3 after two epochs of warm-up. Its present
wmse.yaml has a rate of 2e-3, ten epochs of warm-up and a jitter of twice the strength.

DIR holds CIFAR-10's binary version. Otherwise than there: weight decay is decoupled and acts on kernels alone;
saturation is jittered as much as brightness, there by half; the gradient flows through both views, there through the
first alone; the projector ends without a bias, which whitening takes away; the rest is as for
papers/simclr_cifar10_resnet18.
"""

from typing import Any

import labelfx


def get_config() -> dict[str, Any]:
    changes = {
        "name": "whitening_cifar10_resnet18",
        "method": dict(
            name="whitening",
            augment=dict(name="simclr", min_scale=0.2, flip=True, jitter_strength=0.5, grayscale=0.2, blur=0.0),
            projector=dict(name="siamese_mlp", hidden=(1024,), features=64, output_norm=False, dtype="float32"),
            views=2,
            group_size=128,
            iterations=1,
            epsilon=0.0,
            normalise=True,
        ),
        "optimizer": dict(
            name="adamw",
            learning_rate=3e-3,
            b1=0.9,
            b2=0.999,
            weight_decay=1e-6,
            schedule=dict(name="cosine", warmup_steps=390),
            clip_norm=None,
            accumulate=1,
        ),
    }
    return labelfx.recipe("papers/simclr_cifar10_resnet18", changes)
