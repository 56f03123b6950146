"""SimCLR (Chen et al. 2020) on CIFAR-10, ResNet-18, as solo-learn trains it: 1000 epochs, batch 256.

    python -m labelfx.train --config=papers/simclr_cifar10_resnet18 --workdir=DIR --config.data.data_dir=DIR

Published: 90.74 %, of a linear classifier trained beside the network (README of solo-learn, vturrisi/solo-learn).
Values are those of bash_files/pretrain/cifar/simclr.sh in commit fca55e3 of July 2021, where all numbers of this source
appear: temperature 0.2, a projector without BatchNorm, LARS whose rates are clipped, at 0.4 with a trust coefficient of
0.02, 10 epochs of warm-up, then a cosine. Today's scripts/pretrain/cifar/simclr.yaml has weight decay 1e-4, here 1e-5,
and blur with probability 0.5, here none: that commit's default was 0.5 where both views have one augmentation, the
default before June and the script since August 2021 were 0.

DIR holds CIFAR-10's binary version. Otherwise than there, in this and the other *_cifar10_resnet18 of that source: the
classifier is trained afterwards, on features of whole images, there online on the views, by labels that reach nothing
else; BatchNorm normalises both views together, there each view in a forward pass of its own (BYOL's is so here, too);
precision is bfloat16 with a float32 projector, there float16; the first convolution pads one pixel, there two; it and
the dense layers start from other weights than PyTorch's; crops are resized bilinearly, there bicubically; the rate
warms up from 0 and changes at each step, in July 2021 from 3e-3 and at each epoch, today from 3e-5; the colour jitter's
order is fixed, there drawn; and the norm by which a rate is clipped is of gradient and decay together, there the sum of
their norms.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="simclr_cifar10_resnet18",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="cifar10", data_dir="data/cifar10", placement="device"),
            labels=dict(name="all_labels"),
            model=dict(name="resnet18", stem="cifar", width=64, dtype="bfloat16"),
            method=dict(
                name="contrastive",
                augment=dict(name="simclr", min_scale=0.08, flip=True, jitter_strength=1.0, grayscale=0.2, blur=0.0),
                projector=dict(name="projector", hidden=(2048,), features=256, batch_norm=False, dtype="float32"),
                objective=dict(name="nt_xent", temperature=0.2),
            ),
            optimizer=dict(
                name="larc",
                learning_rate=0.4,
                momentum=0.9,
                weight_decay=1e-5,
                trust_coefficient=0.02,
                schedule=dict(name="cosine", warmup_steps=1_950),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=0, unlabelled=256),
            batches=dict(name="uniform"),
            steps=195_000,  # epochs of 195: an incomplete batch is left out
            steps_per_dispatch=10,
            log_every=100,
            save_every=5_000,
            evals=dict(linear_probe={}, knn=dict(k=200, temperature=0.1)),
        )
    )
