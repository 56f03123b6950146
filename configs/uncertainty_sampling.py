"""Uncertainty sampling (Scheffer et al. 2001): three rounds of supervised training, between which the network asks for
the labels of the digits that it knows least.

    python -m labelfx.train --config=uncertainty_sampling --workdir=/tmp/labelfx/uncertainty_sampling

`ask=dict(name="uniform", count=45)` is what it has to beat: as many labels, drawn blindly.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    ask = dict(name="margin", count=45)
    return ConfigDict(
        dict(
            name="uncertainty_sampling",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="per_class", k=1),
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
            phases=({}, dict(ask=ask), dict(ask=ask)),
            evals=dict(head={}, raw_pixels={}, random_encoder={}),
        )
    )
