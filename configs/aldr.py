"""Label-distributionally robust losses with a temperature of each row's own (ALDR-KL, Zhu et al. 2023), on digits of
which four in ten have a wrong label.

    python -m labelfx.train --config=aldr --workdir=/tmp/labelfx/aldr

20 s of processor time. Accuracy over three seeds: 0.923 (0.016); cross-entropy, `noisy_labels`, 0.898 (0.024).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="aldr",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="all_labels", weak=dict(name="symmetric", rate=0.4)),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0),
                objective=dict(name="aldr", base=10.0, adapt=2.0, margin=0.1),
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
