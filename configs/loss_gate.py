"""The dynamic loss gate with label correction (DLG-LC, of "Self-Supervised Learning with Cluster-Aware-DINO") on digits
of which four in ten have a wrong label.

    python -m labelfx.train --config=loss_gate --workdir=/tmp/labelfx/loss_gate

30 s of processor time. Accuracy over three seeds: 0.912 (0.015); cross-entropy, `noisy_labels`, 0.898 (0.024).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="loss_gate",
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
                rule=dict(name="loss_gate", confidence=0.8, temperature=0.5, warmup=0.2),
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
