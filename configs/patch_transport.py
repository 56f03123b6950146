"""PatchCT (Li et al. 2023): several labels of a scene, each of which is carried to the positions of a map that show it,
and the positions to the labels.

    python -m labelfx.train --config=patch_transport --workdir=/tmp/labelfx/patch_transport

10 s of processor time. Scenes of one to three digits, mean average precision over three seeds: 0.512 (0.031); without
transport, `transport=0.0`, 0.508 (0.031), which each of the seeds is above, by 0.0041 (0.0008) in the mean; constant
scores 0.187.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="patch_transport",
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
                background=0.0,
                label="several",
                train=2000,
                test=500,
                seed=0,
            ),
            labels=dict(name="all_labels"),
            model=dict(name="conv3", width=16, outputs="map", dtype="float32"),
            head=dict(name="class_activation", boost=1.0),
            method=dict(
                name="supervised",
                augment=dict(name="crop_flip", padding=2, flip=False),
                objective=dict(
                    name="patch_transport",
                    transport=0.1,
                    temperature=0.1,
                    gamma_positive=0.0,
                    gamma_negative=0.0,
                    clip=0.0,
                    focal_gradient=True,
                    unknown="ignore",
                ),
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
            evals=dict(multilabel=dict(threshold=0.5, k=(1,))),
        )
    )
