"""Enhanced meta label correction (EMLC, Taraday and Baskin 2023) on digits of which four in ten are called another, and
ten of each class are known: a teacher corrects the doubtful labels so that a student of them does well on the others.

    python -m labelfx.train --config=meta_correction --workdir=/tmp/labelfx/meta_correction

60 s of processor time. Accuracy over two seeds: 0.849 (0.068); with `meta_weight=0.0`, the control, 0.927 (0.041); of
the same network on the ten right labels of a class alone, the recipe `supervised`, 0.925 (0.017) over five. So the
gradient through the step does not pay in 300 steps from fresh parameters.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    schedule = dict(name="cosine", warmup_steps=20)
    return ConfigDict(
        dict(
            name="meta_correction",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="per_class", k=10, weak=dict(name="noisy_rest", rate=0.4)),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="meta_correction",
                augment=dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0),
                corrector=dict(name="projector", hidden=(64,), features=1, batch_norm=False, dtype="float32"),
                teacher_optimizer=dict(
                    name="adamw",
                    learning_rate=1e-3,
                    b1=0.9,
                    b2=0.999,
                    weight_decay=1e-4,
                    schedule=schedule,
                    clip_norm=None,
                    accumulate=1,
                ),
                inject=0.5,
                meta_weight=10.0,
            ),
            optimizer=dict(
                name="sgd",
                learning_rate=0.1,
                momentum=0.9,
                weight_decay=1e-4,
                schedule=schedule,
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=64, unlabelled=64),
            batches=dict(name="uniform"),
            steps=300,
            evals=dict(head={}, raw_pixels={}, random_encoder={}),
        )
    )
