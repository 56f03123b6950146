"""SimCLR as the baseline of debiased contrastive learning (Chuang et al. 2020) on STL-10, ResNet-50.

    python -m labelfx.train --config=papers/simclr_stl10 --workdir=DIR --config.data.data_dir=DIR

Published: 80.15 % by linear evaluation, tau_plus = 0; debiased 84.26 %, hard negatives 87.44 % (README of the authors'
code, chingyaoc/DCL). ResNet-50 with a 3x3 stem, batch 256, 400 epochs of the 105,000 training and unlabelled images,
Adam at a constant 1e-3.

The published number is that of the eval `linear_evaluation`, with the values of linear.py there: its classifier, too,
trains on crops of 32, and is tested on whole images of 96; BatchNorm stays in training mode there while it trains.

DIR holds stl10 as TFDS prepares it, in ArrayRecord. As published, the network trains on crops of the 96 pixels resized
to 32. Otherwise than published: crops are not rounded to pixels; weight decay is decoupled and acts on kernels alone,
where Adam's 1e-6 there is added to every gradient; BatchNorm is over both views and the whole batch, there over one
view on one of two GPUs; blur is not cut to 3 pixels; the order of the colour jitter is fixed, there drawn.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    augment = dict(
        name="simclr_resized", size=32, min_scale=0.08, flip=True, jitter_strength=0.5, grayscale=0.2, blur=0.5
    )
    adam = dict(
        name="adamw",
        learning_rate=1e-3,
        b1=0.9,
        b2=0.999,
        weight_decay=1e-6,
        schedule=dict(name="constant", warmup_steps=0),
        clip_norm=None,
        accumulate=1,
    )
    return ConfigDict(
        dict(
            name="simclr_stl10",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(
                name="tfds:stl10",
                data_dir="data/tensorflow_datasets",
                train_split="train+unlabelled",
                test_split="test",
                image_size=0,
            ),
            labels=dict(name="all_labels"),
            model=dict(name="resnet50", stem="cifar", width=64, remat=False, dtype="float32"),
            method=dict(
                name="contrastive",
                augment=augment,
                projector=dict(name="projector", hidden=(512,), features=128, batch_norm=True, dtype="float32"),
                objective=dict(name="nt_xent", temperature=0.5),
            ),
            optimizer=adam,
            batch=dict(labelled=0, unlabelled=256),
            batches=dict(name="uniform"),
            steps=164_000,
            evals=dict(
                linear_evaluation=dict(
                    optimizer=adam,
                    epochs=100,
                    batch=512,
                    initial_scale=0.0128,
                    augment=augment,
                ),
                linear_probe={},
                knn=dict(k=200, temperature=0.5),
            ),
        )
    )
