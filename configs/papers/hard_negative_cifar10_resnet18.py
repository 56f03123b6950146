"""Contrastive learning with hard negatives (Robinson et al. 2021) on CIFAR-10, ResNet-18, beside SimCLR: 1000 epochs.

    python -m labelfx.train --config=papers/hard_negative_cifar10_resnet18 --workdir=DIR --config.data.data_dir=DIR

Published: no number. This is papers/simclr_cifar10_resnet18, whose published 90.74 % is what to compare with, but for
the objective, with the authors' tau_plus of 0.1 and beta of 1; nothing was tuned.
"""

from typing import Any

import labelfx


def get_config() -> dict[str, Any]:
    changes = {
        "name": "hard_negative_cifar10_resnet18",
        "method.objective": dict(name="hard_negative", temperature=0.2, tau_plus=0.1, beta=1.0),
    }
    return labelfx.recipe("papers/simclr_cifar10_resnet18", changes)
