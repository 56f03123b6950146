"""Attention-based multiple-instance learning (Ilse et al. 2018): which molecules are musks, each a bag of its shapes
(Musk1), a tenth of them for testing.

    python -m labelfx.train --config=attention_pooling --workdir=/tmp/labelfx/attention_pooling --config.data.data_dir=DIR

Attention is no pool that keeps to the assumption of multiple-instance learning (see `objectives.pooled`): compare it
with `multiple_instance`. `python -m experiments.kinds --tables=bags` does so on all ten folds.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="attention_pooling",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="musk1", data_dir="data/musk1", folds=10, fold=0, seed=0),
            labels=dict(name="every"),
            model=dict(name="mlp", hidden=(64,), dtype="float32"),
            head=dict(name="attention", hidden=64),
            method=dict(
                name="supervised",
                augment=dict(name="identity"),
                objective=dict(name="pooled", pool="attention"),
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
            batch=dict(labelled=320, unlabelled=0),
            batches=dict(name="whole_bags", bags_per_batch=8),
            steps=300,
            evals=dict(bag_auc=dict(pool="attention")),
        )
    )
