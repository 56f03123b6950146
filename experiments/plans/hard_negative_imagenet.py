"""Hard negatives (Robinson et al. 2021) where nobody has published them: ResNet-50 on ImageNet, batch 8192.

SimCLR's recipe (configs/papers/simclr_imagenet.py) with the objective of configs/hard_negative.py and, for twice the
batch, twice the learning rate and half the steps. It is here to be planned; it has not been run.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="hard_negative_imagenet",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="folder:imagenet", image_size=224, channels=3),
            labels=dict(name="all_labels"),
            model=dict(name="resnet50", stem="imagenet", width=64, remat=False, dtype="bfloat16"),
            method=dict(
                name="contrastive",
                augment=dict(name="simclr", min_scale=0.08, flip=True, jitter_strength=1.0, grayscale=0.2, blur=0.5),
                projector=dict(name="projector", hidden=(2048,), features=128, batch_norm=True, dtype="bfloat16"),
                objective=dict(name="hard_negative", temperature=0.5, tau_plus=0.1, beta=1.0),
            ),
            optimizer=dict(
                name="lars",
                learning_rate=9.6,
                momentum=0.9,
                weight_decay=1e-6,
                schedule=dict(name="cosine", warmup_steps=1_564),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=0, unlabelled=8192),
            batches=dict(name="uniform"),
            steps=156_393,
            evals=dict(linear_probe={}, knn=dict(k=20, temperature=0.1)),
        )
    )
