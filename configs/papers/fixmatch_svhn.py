"""FixMatch (Sohn et al. 2020) on SVHN with 1,000 labels, WRN-28-2.

    python -m labelfx.train --config=papers/fixmatch_svhn --workdir=DIR --config.data.data_dir=DIR

Published, with RandAugment: an error of 2.28 +- 0.11 % (table 2). As papers/fixmatch_cifar10, but without flips; the
number to compare is `median_of_last_20` in results.json here, too.

DIR holds svhn_cropped as TFDS prepares it, in ArrayRecord. The unlabelled images are the 73,257 of the training split;
the authors' code has data sets with and without the 531,131 extra ones, which `train_split` "train+extra" adds.
Otherwise than published: as for papers/fixmatch_cifar10; and labels are drawn by `label_seed`, there by folds over the
original files, whose order TFDS does not keep.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="fixmatch_svhn",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(
                name="tfds:svhn_cropped",
                data_dir="data/tensorflow_datasets",
                train_split="train",
                test_split="test",
                image_size=0,
                placement="device",
            ),
            labels=dict(name="per_class", k=100),
            model=dict(name="wrn28", width=2, dropout=0.0, dtype="float32"),
            method=dict(
                name="consistency",
                weak=dict(name="crop_flip", padding=4, flip=False),
                strong=dict(
                    name="randaugment",
                    padding=4,
                    flip=False,
                    operations=2,
                    magnitude=1.0,
                    probability=0.5,
                    cutout=0.5,
                ),
                pseudo_labels=dict(name="fixmatch", threshold=0.95),
                alignment=None,
                unlabelled_weight=1.0,
                tsa=None,
                ema=0.999,
            ),
            optimizer=dict(
                name="sgd",
                learning_rate=0.03,
                momentum=0.9,
                weight_decay=5e-4,
                schedule=dict(name="fixmatch_cosine"),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=64, unlabelled=7 * 64),
            batches=dict(name="uniform"),
            steps=2**20,
            steps_per_dispatch=10,
            eval_every=2**10,
            evals=dict(head={}),
        )
    )
