"""A classifier taught what people have said of 8,000 images, some 51 of each: the shares of classes in the place of
labels (CIFAR-10H, Peterson et al. 2019).

    python -m labelfx.train --config=soft_labels --workdir=/tmp/labelfx/soft_labels --config.data.data_dir=DIR \
        --config.data.labels_dir=DIR

20 s of processor time. Cross-entropy with people's shares 1.386 nats, of which 0.149 are people's own doubt; accuracy
0.517. Seed 0: a sign that it works, not a result; experiments/kinds has those.

Nothing is said but the shares: of how near the network comes to those of the 2,000 test images is the eval
`soft_labels`; `head` is by the official labels. The same network taught one label an image, for comparison, is
`--config.labels.weak=None` with the objective `cross_entropy`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="soft_labels",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="cifar10h", data_dir=".", labels_dir=".", seed=0),
            labels=dict(name="every", weak=dict(name="column", column="target", role="target")),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="crop_flip", padding=4, flip=True),
                objective=dict(name="soft_cross_entropy"),
            ),
            optimizer=dict(
                name="adamw",
                learning_rate=1e-3,
                b1=0.9,
                b2=0.999,
                weight_decay=1e-4,
                schedule=dict(name="cosine", warmup_steps=20),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=64, unlabelled=0),
            batches=dict(name="uniform"),
            steps=400,
            evals=dict(soft_labels={}, head={}),
        )
    )
