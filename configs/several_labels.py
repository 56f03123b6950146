"""Several labels of a text: 28 emotions of comments (GoEmotions, Demszky et al. 2020), each a classifier of its own.

    python -m labelfx.train --config=several_labels --workdir=/tmp/labelfx/several_labels --config.data.data_dir=DIR

50 s of processor time. Mean average precision 0.337, logistic regression on TF-IDF 0.404, constant scores 0.042: a mean
of embeddings learnt from 43,410 comments does not reach words. Seed 0, the rate the best of three on the test set: a
sign that it works, not a result.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="several_labels",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="goemotions", data_dir="data/goemotions", split="test", vocab_size=8192, max_length=32),
            labels=dict(name="all_labels"),
            model=dict(name="mean_pool", width=256, dropout=0.5, dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="identity"),
                objective=dict(name="binary_cross_entropy", unknown="ignore"),
            ),
            optimizer=dict(
                name="adamw",
                learning_rate=2e-2,
                b1=0.9,
                b2=0.999,
                weight_decay=1e-4,
                schedule=dict(name="cosine", warmup_steps=20),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=256, unlabelled=0),
            batches=dict(name="uniform"),
            steps=800,
            evals=dict(
                multilabel=dict(threshold=0.5, k=(1, 3)),
                tfidf_multilabel=dict(threshold=0.5, k=(1, 3)),
            ),
        )
    )
