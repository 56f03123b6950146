"""Regression on vectors: disease progression of scikit-learn's diabetes patients, by squared error.

python -m labelfx.train --config=regression --workdir=/tmp/labelfx/regression
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="regression",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="diabetes"),
            labels=dict(name="all_labels"),
            model=dict(name="mlp", hidden=(64,), dtype="float32"),
            method=dict(name="supervised", augment=dict(name="identity"), objective=dict(name="squared_error")),
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
            steps=300,
            evals=dict(regression_error=dict(bin_width=10, few=10)),
        )
    )
