"""Hard-negative contrastive learning on your own images, a few of them labelled.

    python -m labelfx.train --config=own_images --workdir=/tmp/labelfx/own_images --config.data.name=folder:PATH

PATH has one folder a class with the images you have labelled, about a fifth of which are kept for testing, and
`unlabelled/` with all the others; `train/CLASS/` and `test/CLASS/` choose the split yourself.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="own_images",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="folder:images", image_size=32, channels=3),
            labels=dict(name="all_labels"),
            model=dict(name="conv3", width=32, dtype="float32"),
            method=dict(
                name="contrastive",
                augment=dict(name="simclr", min_scale=0.2, flip=True, jitter_strength=0.5, grayscale=0.2, blur=0.0),
                projector=dict(name="projector", hidden=(128,), features=64, batch_norm=True, dtype="float32"),
                objective=dict(name="hard_negative", temperature=0.5, tau_plus=0.1, beta=1.0),
            ),
            optimizer=dict(
                name="adamw",
                learning_rate=2e-3,
                b1=0.9,
                b2=0.999,
                weight_decay=1e-4,
                schedule=dict(name="cosine", warmup_steps=20),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=0, unlabelled=256),
            batches=dict(name="uniform"),
            steps=1000,
            evals=dict(linear_probe={}, knn=dict(k=20, temperature=0.1), rankme={}, raw_pixels={}, random_encoder={}),
        )
    )
