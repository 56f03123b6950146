"""A noise model that is learnt beside the network (Hedderich, Zhu and Klakow 2021), on digits of which four in ten have
a wrong label: how often each class is called another says what a label is worth.

    python -m labelfx.train --config=noise_model --workdir=/tmp/labelfx/noise_model

30 s of processor time. Accuracy over three seeds: 0.829 (0.070); cross-entropy, `noisy_labels`, 0.898 (0.024): after 60
steps the network knows too little to count what is called what, and it does not pay.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="noise_model",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="all_labels", weak=dict(name="symmetric", rate=0.4)),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="relabelling",
                augment=dict(name="small_grey", min_scale=0.5, max_rotation=15.0, jitter_strength=0.5, cutout=0.0),
                objective=dict(name="soft_cross_entropy"),
                rule=dict(name="noise_model", estimate="confusion", warmup=0.2),
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
            batch=dict(labelled=0, unlabelled=64),
            batches=dict(name="uniform"),
            steps=300,
            refresh_every=25,
            evals=dict(head={}, raw_pixels={}, random_encoder={}),
        )
    )
