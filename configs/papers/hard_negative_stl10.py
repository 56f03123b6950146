"""Contrastive learning with hard negatives (Robinson et al. 2021) on STL-10, ResNet-50.

    python -m labelfx.train --config=papers/hard_negative_stl10 --workdir=DIR --config.data.data_dir=DIR

Published: 87.44 % by linear evaluation, beta = 1, tau_plus = 0.1; beta 0: 84.26 %, 0.5: 86.38 %, 2: 87.09 %, 6: 83.09 %
(README of the authors' code, joshr17/HCL, image/). ResNet-50 with a 3x3 stem, batch 256, 400 epochs of the 105,000
training and unlabelled images, Adam at a constant 1e-3.

The published number is that of the eval `linear_evaluation`, with the values of linear.py there: its classifier, too,
trains on crops of 32, and is tested on whole images of 96; BatchNorm stays in training mode there while it trains.

DIR holds stl10 as TFDS prepares it, in ArrayRecord. As published, the network trains on crops of the 96 pixels resized
to 32. Otherwise than published: crops are not rounded to pixels; weight decay is decoupled and acts on kernels alone,
where Adam's 1e-6 there is added to every gradient; BatchNorm is over both views and the whole batch, there over one
view on one of two GPUs; blur is not cut to 3 pixels; the order of the colour jitter is fixed, there drawn.
"""

from typing import Any

import labelfx


def get_config() -> dict[str, Any]:
    changes = {
        "name": "hard_negative_stl10",
        "method.objective": dict(name="hard_negative", temperature=0.5, tau_plus=0.1, beta=1.0),
    }
    return labelfx.recipe("papers/simclr_stl10", changes)
