"""Several labels an image: which digits are to be seen among those pasted on a canvas.

    python -m labelfx.train --config=pasted_labels --workdir=/tmp/labelfx/pasted_labels

6 s on two CPU cores, compiled before. At 500 labelled images: mAP 0.509; of constant scores 0.190. Seed 0, one label
draw: a sign that it works, not a result.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="pasted_labels",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(
                name="pasted",
                of="digits",
                data_dir=None,
                canvas=16,
                low=1,
                high=3,
                background=0.2,
                label="several",
                train=2000,
                test=500,
                seed=0,
            ),
            labels=dict(name="uniform", n=500),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="crop_flip", padding=1, flip=False),
                objective=dict(name="binary_cross_entropy", unknown="ignore"),
            ),
            optimizer=dict(
                name="adamw",
                learning_rate=3e-3,
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
            evals=dict(multilabel=dict(threshold=0.5, k=(1, 3))),
        )
    )
