"""Several labels of a text, each of which looks for itself among the tokens: attention of labels (KeNet, which adds
sentences of knowledge, `head.extra`; LDAM), on GoEmotions (Demszky et al. 2020).

    python -m labelfx.train --config=label_attention --workdir=/tmp/labelfx/label_attention --config.data.data_dir=DIR

30 s of processor time. Mean average precision over three seeds: 0.407 (0.002). A linear classifier of the mean of the
same embeddings, `head=dict(name="linear")` and `model.outputs="features"`: 0.269 (0.001); constant scores 0.042. With
labels read by their names, `head.names="encoded"`, 0.268 on the first seed, where learnt queries have 0.406: the
embeddings are learnt here, and names say little. Nothing was tuned.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="label_attention",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="goemotions", data_dir="data/goemotions", split="test", vocab_size=8192, max_length=32),
            labels=dict(name="all_labels"),
            model=dict(name="mean_pool", width=128, dropout=0.5, outputs="map", dtype="float32"),
            head=dict(name="label_attention", names="learned", extra=()),
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
            batch=dict(labelled=128, unlabelled=0),
            batches=dict(name="uniform"),
            steps=500,
            evals=dict(
                multilabel=dict(threshold=0.5, k=(1, 3)),
            ),
        )
    )
