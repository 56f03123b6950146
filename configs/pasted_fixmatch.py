"""FixMatch (Sohn et al. 2020) on every pixel of digits pasted on a canvas, few of them labelled.

    python -m labelfx.train --config=pasted_fixmatch --workdir=/tmp/labelfx/pasted_fixmatch

11 s on two CPU cores, compiled before. At 100 labelled images: mean IoU 0.245, `pasted_pixels` from these alone
0.251: most pseudo-labels are background. Seed 0, one label draw: a sign that it runs, not a result.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="pasted_fixmatch",
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
                label="dense",
                train=2000,
                test=500,
                seed=0,
            ),
            labels=dict(name="uniform", n=100),
            model=dict(name="conv3", width=32, outputs="map", dtype="float32"),
            head=dict(name="dense", size=(16, 16)),
            method=dict(
                name="consistency",
                weak=dict(name="crop_flip", padding=2, flip=False),
                strong=dict(name="small_grey", min_scale=1.0, max_rotation=0.0, jitter_strength=0.2, cutout=0.3),
                pseudo_labels=dict(name="fixmatch", threshold=0.8),
                alignment=None,
                unlabelled_weight=1.0,
                tsa=None,
                ema=0.99,
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
            batch=dict(labelled=32, unlabelled=64),
            batches=dict(name="uniform"),
            steps=600,
            evals=dict(mean_iou={}),
        )
    )
