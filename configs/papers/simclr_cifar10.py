"""SimCLR as the baseline of debiased contrastive learning (Chuang et al. 2020) on CIFAR-10, ResNet-50.

    python -m labelfx.train --config=papers/simclr_cifar10 --workdir=DIR --config.data.data_dir=DIR

Published: no number for CIFAR-10 that we can trace to a table. On STL-10 this recipe has 80.15 % (tau_plus = 0; README
of the authors' code, chingyaoc/DCL); SimCLR's authors name 94.0 % for ResNet-50 on CIFAR-10 after 1000 epochs of their
own recipe (google-research/simclr, issue 90). ResNet-50 with a 3x3 stem, batch 256, 400 epochs, Adam at a constant
1e-3.

DIR holds CIFAR-10's binary version. Otherwise than in that code: weight decay is decoupled and acts on kernels alone,
where Adam's 1e-6 there is added to every gradient; BatchNorm is over both views and the whole batch, there over one
view on one of two GPUs; there is no blur, as in SimCLR's recipe for CIFAR-10, where that of the code has 3x3 pixels;
the order of the colour jitter is fixed, there drawn.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="simclr_cifar10",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="cifar10", data_dir="data/cifar10", placement="device"),
            labels=dict(name="all_labels"),
            model=dict(name="resnet50", stem="cifar", width=64, remat=False, dtype="float32"),
            method=dict(
                name="contrastive",
                augment=dict(name="simclr", min_scale=0.08, flip=True, jitter_strength=0.5, grayscale=0.2, blur=0.0),
                projector=dict(name="projector", hidden=(512,), features=128, batch_norm=True, dtype="float32"),
                objective=dict(name="nt_xent", temperature=0.5),
            ),
            optimizer=dict(
                name="adamw",
                learning_rate=1e-3,
                b1=0.9,
                b2=0.999,
                weight_decay=1e-6,
                schedule=dict(name="constant", warmup_steps=0),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=0, unlabelled=256),
            batches=dict(name="uniform"),
            steps=78_000,
            steps_per_dispatch=10,
            evals=dict(linear_probe={}, knn=dict(k=200, temperature=0.5)),
        )
    )
