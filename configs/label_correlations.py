"""Several labels whose predictions are to go together as labels do (a hybrid loss for emotions, of which only the
abstract was at hand): moods of songs.

python -m labelfx.train --config=label_correlations --workdir=/tmp/labelfx/label_correlations --config.data.data_dir=DIR

5 s of processor time. Emotions (593 songs), mean average precision over three seeds and splits: 0.721 (0.008);
cross-entropy alone, `objective=dict(name="binary_cross_entropy", unknown="ignore")`: 0.723 (0.005); constant scores
0.312. Where all labels are said the two terms do not pay.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="label_correlations",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="multilabel:emotions", data_dir="data/multilabel", seed=0),
            labels=dict(name="all_labels"),
            model=dict(name="mlp", hidden=(128,), dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="identity"),
                objective=dict(name="hybrid", correlation=1.0, contrast=0.1, temperature=0.1),
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
            batch=dict(labelled=128, unlabelled=0),
            batches=dict(name="uniform"),
            steps=400,
            evals=dict(multilabel=dict(threshold=0.5, k=(1, 3))),
        )
    )
