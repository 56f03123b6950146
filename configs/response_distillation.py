"""Response-based distillation (Hinton et al. 2015; TAIL): sentences whose labels somebody else's model has named once,
of which neither weights nor probabilities are to be had.

    python -m labelfx.train --config=response_distillation --workdir=/tmp/labelfx/response_distillation \
        --config.data.data_dir=DIR --config.labels.weak.path=ANSWERS.npz

A few seconds on two CPU cores. WRENCH's comments on YouTube, the votes of its ten rules as answers: accuracy 0.780; of
the 89 % of the training rows that have an answer 0.789 of the majorities are right. Seed 0: a sign that it works, not a
result.

ANSWERS.npz holds `row`, `judge`, `vote` and `confidence` (`labelfx.labels.recorded`), of one judge or several, whose
majority is the answer; `labelfx.vote` writes such a file of runs of your own. No label but those answers is used.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="response_distillation",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="wrench:youtube", data_dir=".", split="test", vocab_size=2048, max_length=32),
            labels=dict(name="every", weak=dict(name="recorded", path="answers.npz")),
            model=dict(name="mean_pool", width=64, dropout=0.5, dtype="float32"),
            method=dict(
                name="distillation",
                augment=dict(name="identity"),
                soft_labels=dict(name="labels", column="label", smoothing=0.1),
                soft_objective=dict(name="kd", temperature=1.0),
                objective=dict(name="cross_entropy", label_smoothing=0.0),
                soft_weight=1.0,
            ),
            optimizer=dict(
                name="adamw",
                learning_rate=1e-2,
                b1=0.9,
                b2=0.999,
                weight_decay=1e-4,
                schedule=dict(name="cosine", warmup_steps=20),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=64, unlabelled=0),
            batches=dict(name="uniform"),
            steps=200,
            evals=dict(head={}),
        )
    )
