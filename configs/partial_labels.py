"""Learning from partial labels: digits with a set of candidates, the truth among them; complementary labels
are the case of all classes but one.

    python -m labelfx.train --config=partial_labels --workdir=/tmp/labelfx/partial_labels
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="partial_labels",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="all_labels", weak=dict(name="partial", rate=0.3)),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0),
                objective=dict(name="candidates", loss="log"),
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
            evals=dict(head={}),
        )
    )
