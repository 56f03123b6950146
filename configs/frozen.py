"""A classifier on the features of an encoder that others trained, which stays as it is.

    python -m labelfx.train --config=frozen --workdir=/tmp/labelfx/frozen --config.model.file=FOLDER

FOLDER holds `model.safetensors` and `config.json` as timm and Hugging Face publish them. Rows go through the encoder
once; their features are kept in the workdir.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="frozen",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="digits"),
            labels=dict(name="per_class", k=10),
            model=dict(
                name="pretrained",
                file="",
                image_size=96,
                frozen=True,
                lora=None,
                norm="stored",
                dtype="float32",
            ),
            method=dict(
                name="supervised",
                augment=dict(name="identity"),
                objective=dict(name="cross_entropy", label_smoothing=0.0),
            ),
            optimizer=dict(
                name="sgd",
                learning_rate=0.3,
                momentum=0.9,
                weight_decay=1e-2,
                schedule=dict(name="cosine", warmup_steps=0),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=64, unlabelled=0),
            batches=dict(name="uniform"),
            steps=300,
            evals=dict(head={}, linear_probe={}),
        )
    )
