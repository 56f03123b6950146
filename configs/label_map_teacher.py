"""A teacher for label maps (configs/label_map.py): a network that pools by the mean, on scenes of one or two digits.

A label names one of a scene's digits.

    python -m labelfx.train --config=label_map_teacher --workdir=/tmp/labelfx/label_map_teacher

40 s of a core. Accuracy 0.530: of two digits in a scene either may be the one that is named. Seed 0: a sign that it
works, not a result.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="label_map_teacher",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(
                name="pasted",
                of="digits",
                data_dir=None,
                canvas=16,
                low=1,
                high=2,
                background=0.0,
                label="one",
                train=2000,
                test=500,
                seed=0,
            ),
            labels=dict(name="all_labels"),
            model=dict(name="resnet18", stem="cifar", width=8, remat=False, dtype="float32"),
            method=dict(
                name="supervised",
                augment=dict(name="crop_flip", padding=2, flip=False),
                objective=dict(name="cross_entropy", label_smoothing=0.0),
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
            evals=dict(head={}),
        )
    )
