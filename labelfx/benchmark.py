"""The former name of `labelfx.compare`, which says what its flags do; its `--out` is `--workdir` here:

python -m labelfx.benchmark --data=digits --methods=hard_negative,fixmatch --labels=1,4,25,all --workdir=DIR
"""

from labelfx.compare import main
from labelfx.loop.suited import BASELINE as BASELINE
from labelfx.loop.suited import DEFAULTS as DEFAULTS
from labelfx.reports.label_budgets import benchmark as benchmark

if __name__ == "__main__":
    main("workdir")
