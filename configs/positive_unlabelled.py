"""Learning from positive and unlabelled digits whose propensity is known (SAR-E, Bekker et al. 2019; uPU and nnPU where
it is constant): which digits are odd, from some of the odd ones.

    python -m labelfx.train --config=positive_unlabelled --workdir=/tmp/labelfx/positive_unlabelled
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="positive_unlabelled",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits", merge=((0, 2, 4, 6, 8), (1, 3, 5, 7, 9))),
            labels=dict(
                name="all_labels",
                weak=dict(
                    name="positive_unlabelled",
                    positives=(1,),
                    propensity=dict(name="logistic", columns=(), slope=1.0, mean=0.3),
                    known=True,
                ),
            ),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0),
                objective=dict(name="positive_unlabelled", clamp="nonnegative"),
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
