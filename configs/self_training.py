"""Self-training on the agreement of several finished runs (arXiv 2503.09707), here three of the baseline on the digits.

    python -m labelfx.vote /tmp/labelfx/supervised /tmp/labelfx/supervised1 /tmp/labelfx/supervised2 \\
        --out=/tmp/labelfx/votes.npz
    python -m labelfx.train --config=self_training --workdir=/tmp/labelfx/self_training

After `--config=supervised` with the seeds 0, 1 and 2. Runs that are told the same labels and differ otherwise, in their
encoders or how these are adapted, agree where they are right. Every training row is taught the mean of their one-hot
predictions, those with a label that label. `n` in its results counts rows that are taught, not labels that people gave.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="self_training",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="every", weak=dict(name="recorded", path="/tmp/labelfx/votes.npz")),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0),
                objective=dict(name="vote_cross_entropy"),
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
