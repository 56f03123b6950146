"""A graph convolutional network of two layers (Kipf and Welling 2017) on the public split of Cora: 20 labelled papers a
field, 2,708 in all.

    python -m labelfx.train --config=gcn --workdir=/tmp/labelfx/gcn --config.data.data_dir=DIR

The values are the published ones: every step takes all 140 labelled papers, and the decay of the first layer alone is
L2. The paper stops by the loss of 500 validation papers; here the last of 200 steps counts, and no label is spent.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    adam = dict(
        name="adam",
        learning_rate=0.01,
        b1=0.9,
        b2=0.999,
        weight_decay=5e-4,
        schedule=dict(name="constant", warmup_steps=0),
        clip_norm=None,
        accumulate=1,
    )
    return ConfigDict(
        dict(
            name="gcn",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="planetoid:cora", data_dir="."),
            labels=dict(name="first", n=140),
            model=dict(name="gcn", hidden=(16,), dropout=0.5, dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="identity"),
                objective=dict(name="cross_entropy", label_smoothing=0.0),
            ),
            optimizer=dict(name="by_path", paths=("backbone/", ""), optimizers=(adam, dict(adam, weight_decay=0.0))),
            batch=dict(labelled=140, unlabelled=0),
            batches=dict(name="uniform"),
            steps=200,
            evals=dict(head={}, node_words={}, label_propagation=dict(alpha=0.9, rounds=50)),
        )
    )
