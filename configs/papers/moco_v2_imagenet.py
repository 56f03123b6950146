"""MoCo v2 (Chen et al. 2020): ResNet-50 on ImageNet, batch 256, queue 65,536, 200 epochs; 67.5 % by linear evaluation.

    python -m labelfx.train --config=configs/papers/moco_v2_imagenet.py --workdir=DIR --config.data.name=folder:PATH

PATH has train/CLASS/ and, with the validation images, test/CLASS/. What it takes of a TPU slice is in
experiments/plans/README.md. The published number is that of the eval `linear_evaluation`, whose values are those of
main_lincls.py in the authors' code, facebookresearch/moco; the best epoch counts there, here the last. Otherwise than
published, momentum is Nesterov's, in both trainings, biases and BatchNorm are not decayed, crops are from the central
square, resized to 224 pixels before (of a picture of 500x375 three quarters, and the smallest crop has 100 pixels a
side, there 194: what it costs is not measured, we expect a few points), the order of the colour jitter is fixed, and
BatchNorm is over the whole batch on any mesh. That hides which images a query shares a GPU with, not which batch it is
of: with `model.norm_groups` 8, the published GPUs, groups are normalised apart and keys shuffled between them, as
published.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="moco_v2_imagenet",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="folder:imagenet", image_size=224, channels=3),
            labels=dict(name="all_labels"),
            model=dict(name="resnet50", stem="imagenet", width=64, remat=False, dtype="bfloat16"),
            method=dict(
                name="moco",
                augment=dict(name="simclr", min_scale=0.2, flip=True, jitter_strength=0.5, grayscale=0.2, blur=0.5),
                projector=dict(name="projector", hidden=(2048,), features=128, batch_norm=False, dtype="bfloat16"),
                temperature=0.2,
                momentum=0.999,
                queue_size=65_536,
            ),
            optimizer=dict(
                name="sgd",
                learning_rate=0.03,
                momentum=0.9,
                weight_decay=1e-4,
                schedule=dict(name="cosine", warmup_steps=0),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=0, unlabelled=256),
            batches=dict(name="uniform"),
            steps=1_000_800,
            evals=dict(
                linear_evaluation=dict(
                    optimizer=dict(
                        name="sgd",
                        learning_rate=30.0,
                        momentum=0.9,
                        weight_decay=0.0,
                        schedule=dict(name="step_decay", at=(0.6, 0.8), factor=0.1),
                        clip_norm=None,
                        accumulate=1,
                    ),
                    epochs=100,
                    batch=256,
                    initial_scale=0.01,
                    augment=dict(
                        name="simclr", min_scale=0.08, flip=True, jitter_strength=0.0, grayscale=0.0, blur=0.0
                    ),
                ),
                linear_probe={},
                knn=dict(k=20, temperature=0.1),
            ),
        )
    )
