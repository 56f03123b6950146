"""What a task is judged by, and its labels counted in: the one place where tables, benchmark and choices learn it."""

from typing import NamedTuple

from labelfx.data import Task


class Headline(NamedTuple):
    """metric: the number of an eval that stands for it. larger: whether more of it is better. budget: what labels are
    counted in. floor: the number beside it that no network is needed for. percent: whether it is a share, shown in %.
    """

    metric: str
    larger: bool
    budget: str
    floor: str = ""
    percent: bool = True

    @property
    def words(self) -> str:
        return self.metric.replace("_", " ")

    @property
    def axis(self) -> str:
        """What stands at an axis."""
        return self.words + " in %" * self.percent

    @property
    def unit(self) -> str:
        """Of how many there are in all: a count of labels a class is one of labels."""
        return self.budget.removesuffix(" a class")


HEADLINES: dict[Task, Headline] = {
    "class": Headline("accuracy", True, "labels a class"),
    "several": Headline("mAP", True, "labelled rows", "prevalence"),
    "dense": Headline("mean_iou", True, "labelled images"),
    "tags": Headline("accuracy", True, "labelled rows"),
    "boxes": Headline("average_precision", True, "labelled images"),
    "target": Headline("error", False, "labelled rows", "constant_error", False),
    "none": Headline("value", True, "labels", percent=False),
}
