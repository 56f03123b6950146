"""MoCo (He et al. 2020) on CIFAR-10, ResNet-18, as in its authors' public demo: 200 epochs, batch 512.

    python -m labelfx.train --config=papers/moco_cifar10_resnet18 --workdir=DIR --config.data.data_dir=DIR

Published: 82.6 % by kNN with k 200 and temperature 0.1, for the loss of one direction (colab/moco_cifar10_demo.ipynb of
the authors' code, facebookresearch/moco; 86.3 % and 88.7 % after 400 and 800 epochs). A queue of 4,096, momentum 0.99,
temperature 0.1, BatchNorm in 8 groups with shuffled keys, SGD at 0.06 with a cosine.

DIR holds CIFAR-10's binary version. Otherwise than there: the kNN reads the 512 features of the backbone, there the 128
of its last layer, in which the loss acts; momentum is Nesterov's, there plain; weight decay acts on kernels alone;
precision is bfloat16 with a float32 projector, there float32; the first and the last layer start from other weights
than PyTorch's; the order of the colour jitter is fixed, there drawn; the rate falls at each step, there at each epoch;
images are scaled to [-1, 1].
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            name="moco_cifar10_resnet18",
            seed=0,
            label_seed=0,
            data_seed=0,
            data=dict(name="cifar10", data_dir="data/cifar10", placement="device"),
            labels=dict(name="all_labels"),
            model=dict(name="resnet18", stem="cifar", width=64, norm_groups=8, dtype="bfloat16"),
            method=dict(
                name="moco",
                augment=dict(name="simclr", min_scale=0.08, flip=True, jitter_strength=0.5, grayscale=0.2, blur=0.0),
                projector=dict(name="projector", hidden=(), features=128, batch_norm=False, dtype="float32"),
                temperature=0.1,
                momentum=0.99,
                queue_size=4096,
            ),
            optimizer=dict(
                name="sgd",
                learning_rate=0.06,
                momentum=0.9,
                weight_decay=5e-4,
                schedule=dict(name="cosine", warmup_steps=0),
                clip_norm=None,
                accumulate=1,
            ),
            batch=dict(labelled=0, unlabelled=512),
            batches=dict(name="uniform"),
            steps=19_400,  # epochs of 97: an incomplete batch is left out
            steps_per_dispatch=10,
            log_every=100,
            save_every=5_000,
            evals=dict(linear_probe={}, knn=dict(k=200, temperature=0.1)),
        )
    )
