"""Supervised training on digits of which four in ten have a wrong label, by ordinary cross-entropy: the floor of
every method for noisy labels.

    python -m labelfx.train --config=noisy_labels --workdir=/tmp/labelfx/noisy_labels
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="noisy_labels",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="all_labels", weak=dict(name="symmetric", rate=0.4)),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0),
                objective=dict(name="cross_entropy", label_smoothing=0.0),
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
            evals=dict(head={}, raw_pixels={}, random_encoder={}),
        )
    )
