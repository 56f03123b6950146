"""What the house rules ask of the source itself, and of the package from outside."""

import ast
import inspect
import json
import pydoc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from recipes import tiny

import labelfx
from labelfx import config as configs
from labelfx import list as listing
from labelfx.config import ConfigError, locate
from labelfx.loop import metrics

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("labelfx/**/*.py"), *ROOT.glob("configs/**/*.py"), *ROOT.glob("experiments/**/*.py")])


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_flax_linen_stays_in_models():
    importers = {path for path in SOURCES if any("flax" in name for name in imports(path))}
    assert {path.relative_to(ROOT).parts[:2] for path in importers} == {("labelfx", "models")}


def test_no_pickle_and_no_tensorflow():
    for path in SOURCES:
        found = {"pickle", "dill", "tensorflow", "torch"} & {name.partition(".")[0] for name in imports(path)}
        assert found == ({"torch"} if path.name in ("torch_simclr.py", "torch_encoders.py") else set()), (
            path
        )  # other sides
        assert "allow_pickle=True" not in path.read_text()


def test_everything_that_a_config_may_name_is_documented_in_one_line():
    for section, lines in listing.table().items():
        assert lines, section
        assert all(line and "\n" not in line for line in lines.values())
        assert not any(line.endswith(("e.g", "i.e", " ", "..")) for line in lines.values()), section
    assert "Robinson et al. 2021" in listing.table()["objectives"]["hard_negative"]
    assert "He et al. 2020" in listing.table()["methods"]["moco"]


def test_what_changes_results_has_no_default():
    """A default is for what cannot change a result; and BatchNorm is over the whole batch, features are what a backbone
    makes of its map, and rows are not mixed with each other, unless a config says not."""
    allowed = {"remat": False, "norm_groups": 1, "block_size": None, "outputs": "features", "mix": None}
    allowed["description"] = None  # of a pretrained file, which says it itself
    allowed["adversary"] = None  # nor does a second network judge the first
    allowed["matrix"] = None  # complementary labels are drawn without preference
    allowed["tokenizer"] = ""  # of texts is learnt from them
    for part in listing.SECTIONS.values():
        for name in configs.names(part):
            keywords = configs.parameters(configs.function(part, name))[1]
            found = {key: keyword.default for key, keyword in keywords.items() if keyword.default is not keyword.empty}
            assert found.items() <= allowed.items(), name


def test_the_package_from_outside(tmp_path):
    code = (
        "import labelfx, labelfx.train, inspect; from labelfx.config import locate; print(locate('hard_negative'));"
        "assert inspect.isfunction(labelfx.train) and inspect.isfunction(labelfx.evaluate);"
        "import sys; assert labelfx.train is sys.modules['labelfx.train'].train;"
        "assert labelfx.ConfigError is sys.modules['labelfx.train'].ConfigError;"
        "from labelfx import list as listing; listing.table();"  # imports every room
        "assert 'tensorflow' not in sys.modules;"  # and no device is taken before several processes have met:
        "from jax._src import xla_bridge; assert not xla_bridge.backends_are_initialized()"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()).name == "hard_negative.py"
    assert (Path(labelfx.__file__).parent / "py.typed").exists()


def test_what_the_package_offers():
    """Functions, each with its own help, also after its module was imported, and nothing else."""
    import labelfx.benchmark
    import labelfx.train  # which would put the module there

    commands = "benchmark compare condense derive evaluate export features fit mine plan predict"
    commands = {*commands.split(), *"reinforce report suggest table train vote".split()}
    assert (
        set(dir(labelfx))
        == {*commands, "load", "read_images", "recipe", "ConfigError", "__version__"}
        == {
            *labelfx.__all__,
            "__version__",
        }
    )
    for name in commands | {"load", "read_images", "recipe"}:
        function = getattr(labelfx, name)
        assert inspect.isfunction(function) and function.__name__ == name and inspect.getdoc(function)
    assert pydoc.render_doc(labelfx.train).startswith("Python Library Documentation: function train in module")
    with pytest.raises(TypeError, match=r"^train\(\) missing 1 required positional argument: 'workdir'$"):
        labelfx.train({})
    with pytest.raises(AttributeError, match="module 'labelfx' has no attribute 'trian'"):
        labelfx.trian  # noqa: B018


def test_a_recipe_is_found_by_name_or_path(tmp_path):
    own = tmp_path / "own.py"
    own.touch()
    assert locate(str(own)) == str(own)
    assert locate("configs/moco.py").endswith("configs/moco.py")
    with pytest.raises(ConfigError, match="did you mean 'moco'"):
        locate("mocco")


class Kept:
    """A user's writer."""

    def __init__(self):
        self.written, self.flushed = [], 0

    def write_scalars(self, step, scalars):
        self.written.append((step, dict(scalars)))

    def flush(self):
        self.flushed += 1


def test_a_users_writer_is_given_what_the_workdir_is(tmp_path):
    own = Kept()
    config = tiny("supervised", evals={"head": {}}, eval_every=4)
    found = labelfx.train(config, tmp_path, writer=own)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [{"step": step, **scalars} for step, scalars in own.written[:-1]] == logged and own.flushed > 1
    step, scalars = own.written[-1]
    assert step == 6 and scalars["head/accuracy"] == found["metrics"]["head"]["accuracy"]


def test_clus_writers_fit(tmp_path):
    writers = pytest.importorskip("clu.metric_writers", reason="clu's writers need TensorFlow")
    metrics.Writer(tmp_path, start=0, also=writers.LoggingWriter()).write(1, {"loss": 0.5})


def test_metrics_are_json_and_tensorboard(tmp_path):
    writer = metrics.Writer(tmp_path, start=0)
    for step in (1, 2, 3):
        writer.write(step, {"loss": 0.5 * step} | ({"gone": float("nan")} if step == 2 else {}))
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 4, "lo')  # cut short by a kill
    metrics.Writer(tmp_path, start=2).close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0, "gone": None}]
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert b"loss" in events and np.float32(1.5).tobytes() in events
