"""Supervised training on averages of two digits (mixup, Zhang et al. 2018).

    python -m labelfx.train --config=mixing --workdir=/tmp/labelfx/mixing

20 s of processor time. At 10 labels a class: 0.922, `supervised` 0.927. Seed 0, one label draw: a sign that it works,
not a result.

With `mix=dict(name="cutmix", alpha=1.0)` a box of each image is its partner's instead (CutMix, Yun et al. 2019).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="mixing",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="per_class", k=10),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0),
                objective=dict(name="cross_entropy", label_smoothing=0.0),
                mix=dict(name="mixup", alpha=0.2),
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
