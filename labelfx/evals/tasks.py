"""What a task is judged by, and its labels counted in: the one place where tables, benchmark and choices learn it."""

from typing import NamedTuple

from labelfx.data import Task


class Headline(NamedTuple):
    """metric: the number of an eval that stands for it. larger: whether more of it is better. budget: what labels are
    counted in."""

    metric: str
    larger: bool
    budget: str


HEADLINES: dict[Task, Headline] = {
    "class": Headline("accuracy", True, "labels a class"),
    "several": Headline("mAP", True, "labelled rows"),
    "dense": Headline("mean_iou", True, "labelled images"),
    "tags": Headline("accuracy", True, "labelled rows"),
    "boxes": Headline("average_precision", True, "labelled images"),
    "target": Headline("error", False, "labelled rows"),
    "none": Headline("value", True, "labels"),
}
BAGS = Headline("auc", True, "labelled bags")
