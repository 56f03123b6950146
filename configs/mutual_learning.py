"""Deep mutual learning (Zhang et al. 2018): two networks learn from labels and from each other.

    python -m labelfx.train --config=mutual_learning --workdir=/tmp/labelfx/mutual_learning

30 s on two CPU cores. At 10 labels a class: 0.935, supervised 0.927; raw pixels 0.895, random encoder 0.840. Seed 0,
one label draw: a sign that it works, not a result.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    def optimizer():
        return dict(
            name="adamw",
            learning_rate=1e-3,
            b1=0.9,
            b2=0.999,
            weight_decay=1e-4,
            schedule=dict(name="cosine", warmup_steps=20),
            clip_norm=None,
            accumulate=1,
        )

    return ConfigDict(
        dict(
            name="mutual_learning",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="per_class", k=10),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="mutual_learning",
                augment=dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0),
                peer_optimizer=optimizer(),
                temperature=1.0,
            ),
            optimizer=optimizer(),
            batch=dict(labelled=32, unlabelled=64),
            batches=dict(name="uniform"),
            steps=300,
            evals=dict(head={}, raw_pixels={}, random_encoder={}),
        )
    )
