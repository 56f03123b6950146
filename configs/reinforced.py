"""Dataset reinforcement (Faghri et al. 2023, ICCV): a student learns what teachers have said of ten views of an image.

No teacher runs while it trains, and any other student may learn from the same file.

    python -m labelfx.reinforce --runs=/tmp/labelfx/supervised --views=10 --top=10 --out=/tmp/labelfx/soft_labels
    python -m labelfx.train --config=reinforced --workdir=/tmp/labelfx/reinforced

After `--config=supervised`; 35 s of a core. At 10 labels a class: 0.932, its teacher 0.935; raw pixels 0.895, random
encoder 0.840. Seed 0, one label draw: a sign that it works, not a result.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="reinforced",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="per_class", k=10),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="distillation",
                augment=dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0),
                soft_labels=dict(name="stored", file="/tmp/labelfx/soft_labels", fill="spread", crops=1),
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
