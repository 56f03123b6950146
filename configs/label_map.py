"""ReLabel (Yun et al. 2021, CVPR): the soft label of a crop is what a teacher said of that part of the whole picture.

    python -m labelfx.train --config=label_map_teacher --workdir=/tmp/labelfx/label_map_teacher
    python -m labelfx.reinforce --runs=/tmp/labelfx/label_map_teacher --maps --top=10 --out=/tmp/labelfx/label_maps
    python -m labelfx.train --config=label_map --workdir=/tmp/labelfx/label_map

30 s of a core. At 10 labels a class: 0.256, with `soft_weight` 0 0.200; its teacher, which saw 2,000 labels, 0.530.
Seed 0, one label draw: a sign that it works, not a result.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="label_map",
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
            labels=dict(name="per_class", k=10),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="distillation",
                augment=dict(name="small_grey", min_scale=0.25, max_rotation=0.0, jitter_strength=0.5, cutout=0.0),
                soft_labels=dict(name="label_map", file="/tmp/labelfx/label_maps"),
                soft_objective=dict(name="kd", temperature=2.0),
                objective=dict(name="cross_entropy", label_smoothing=0.0),
                soft_weight=0.9,
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
            batch=dict(labelled=32, unlabelled=64),
            batches=dict(name="uniform"),
            steps=300,
            evals=dict(head={}, raw_pixels={}, random_encoder={}),
        )
    )
