"""One-sided regression (U2): disease progression of scikit-learn's diabetes patients, half of whose targets were seen
too low.

    python -m labelfx.train --config=incomplete --workdir=/tmp/labelfx/incomplete

10 s of processor time. Mean absolute error over three seeds: 45.7 (0.9); by `squared_error`, which believes all, 49.0
(0.8), and of complete targets, the recipe `regression`, 43.8 (0.2). The scale is 1.6 times what deviates of them.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="incomplete",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="diabetes"),
            labels=dict(name="all_labels", weak=dict(name="incomplete", rate=0.5, scale=100.0)),
            model=dict(name="mlp", hidden=(64,), dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="identity"),
                objective=dict(name="one_sided_regression", upper_share=0.5, scale=90.0),
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
            steps=300,
            evals=dict(regression_error=dict(bin_width=10, few=10)),
        )
    )
