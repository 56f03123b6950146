"""Weak supervision (Ratner et al. 2019; Smith et al. 2022): a label model says what the votes of labelling functions
are worth, and a network is taught what it makes of them. Here ten rules on WRENCH's comments on YouTube; no label is
used.

    python -m labelfx.train --config=label_model --workdir=/tmp/labelfx/label_model --config.data.data_dir=DIR

A few seconds on two CPU cores. Accuracy 0.848 (0.008) over three seeds, as of the majority alone,
`--config.method.rule.model=majority`, 0.856 (0.008): label models seldom beat it, as snorkel's
users find too. `l2` was chosen by the accuracy of the label model on the training rows of three of WRENCH's sets, so
with labels that a user has not.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="label_model",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="wrench:youtube", data_dir=".", split="test", vocab_size=2048, max_length=32),
            labels=dict(name="every", weak=dict(name="column", column="votes", role="votes")),
            model=dict(name="mean_pool", width=64, dropout=0.5, dtype="float32"),
            method=dict(
                name="relabelling",
                augment=dict(name="identity"),
                objective=dict(name="soft_cross_entropy"),
                rule=dict(name="votes", model="moments", l2=1.0, steps=300),
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
            batch=dict(labelled=0, unlabelled=64),
            batches=dict(name="uniform"),
            steps=200,
            evals=dict(head={}),
        )
    )
