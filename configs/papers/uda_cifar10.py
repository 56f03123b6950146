"""UDA (Xie et al. 2020) on CIFAR-10 with 4,000 labels, WRN-28-2.

    python -m labelfx.train --config=papers/uda_cifar10 --workdir=DIR --config.data.data_dir=DIR

Published: an error of 5.27 +- 0.11 %; 94.5 % to 94.9 % right by the script for one GPU, which this is (README and
image/scripts/run_cifar10_gpu.sh of the authors' code, google-research/uda). 200,000 steps of 32 labelled and 160
unlabelled images; that script has no annealing, no threshold and no sharpening.

DIR holds CIFAR-10's binary version. Otherwise than published: RandAugment where the authors have AutoAugment's policy
for CIFAR-10, with 100 copies of an image made beforehand; the rate falls to 0, there to 0.004 of its peak; the network
is FixMatch's.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="uda_cifar10",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="cifar10", data_dir="data/cifar10", placement="device"),
            labels=dict(name="per_class", k=400),
            model=dict(name="wrn28", width=2, dropout=0.0, dtype="float32"),
            method=dict(
                name="consistency",
                weak=dict(name="crop_flip", padding=4, flip=True),
                strong=dict(
                    name="randaugment",
                    padding=4,
                    flip=True,
                    operations=2,
                    magnitude=1.0,
                    probability=0.5,
                    cutout=0.5,
                ),
                pseudo_labels=dict(name="uda", temperature=1.0, threshold=0.0),
                alignment=None,
                unlabelled_weight=1.0,
                tsa=None,
                ema=0.0,
            ),
            optimizer=dict(
                name="sgd",
                learning_rate=0.03,
                momentum=0.9,
                weight_decay=5e-4,
                schedule=dict(name="cosine", warmup_steps=20_000),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=32, unlabelled=160),
            batches=dict(name="uniform"),
            steps=200_000,
            steps_per_dispatch=10,
            evals=dict(head={}),
        )
    )
