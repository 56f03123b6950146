"""MEAL V2 (Shen & Savvides 2020): the mean of several networks' probabilities teaches one that was trained before, and
an adversary judges whose log-probabilities are whose; no label is used.

    for seed in 0 1 2; do
        python -m labelfx.train --config=supervised --workdir=/tmp/labelfx/teacher_$seed --config.seed=$seed; done
    python -m labelfx.train --config=ensemble_distillation --workdir=/tmp/labelfx/ensemble_distillation

Half a minute on two CPU cores each. At 10 labels a class, which the teachers have seen: 0.932, its teachers 0.935,
0.882 and 0.903, the first of which it starts from: nothing gained here. Seed 0, one label draw: a sign that it works,
not a result.

The student starts from the first of its teachers. It has no weight decay, which soft labels make up for, and a constant
rate.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    def augment():
        return dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0)

    def adam(learning_rate):
        return dict(
            name="adam",
            learning_rate=learning_rate,
            b1=0.9,
            b2=0.999,
            weight_decay=0.0,
            schedule=dict(name="constant", warmup_steps=0),
            clip_norm=None,
            accumulate=1,
        )

    return ConfigDict(
        dict(
            name="ensemble_distillation",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="none"),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="distillation",
                augment=augment(),
                soft_labels=dict(name="teachers", augment=augment(), combine="probabilities"),
                soft_objective=dict(name="kd", temperature=1.0),
                objective=dict(name="cross_entropy", label_smoothing=0.0),
                soft_weight=1.0,
                adversary=dict(
                    head=dict(name="projector", hidden=(5, 2), features=1, batch_norm=False, dtype="float32"),
                    optimizer=adam(1e-3),
                    weight=1.0,
                ),
            ),
            optimizer=adam(1e-3),
            batch=dict(labelled=0, unlabelled=96),
            batches=dict(name="uniform"),
            steps=300,
            backbone="/tmp/labelfx/teacher_0",
            teacher=tuple(f"/tmp/labelfx/teacher_{seed}" for seed in range(3)),
            evals=dict(head={}),
        )
    )
