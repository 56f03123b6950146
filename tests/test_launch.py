"""Launching on machines: the commands that would run there go to fakes, which play a cloud or a scheduler."""

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.launch import __main__ as launch

FOLDER = Path(launch.__file__).parent
ODD = ["--config=simclr", "--config.name=a  b", """--config.data.name=folder:it's "$HOME" `x` \\ *;&|""", "--config.x="]
AT = ["--name=a", "--zone=z"]
UP = ["up", *AT, "--accelerator=v5litepod-16", "--spot", "--share=10.0.0.2:/share", "--poll=0"]

# Plays gcloud, and git, which it only records. `cloud` holds what there is and what is to happen.
FAKE = '''
import json

def play(cloud, words):
    """A command's exit code, standard output and standard error."""
    text = " ".join(words)
    cloud["calls"].append(words)
    assert len(cloud["calls"]) < 200, "it goes round in circles"
    for failure in cloud["failures"]:
        if failure[0] in text and failure[1] > 0:
            failure[1] -= 1
            return 1, "", f"Using ssh batch size of 1.\\n{failure[2]}\\nmore\\n"
    if words[0] == "git":
        return 0, cloud["changes"] if "status" in words else "", ""
    if "queued-resources create" in text:
        cloud["request"], cloud["node"], cloud["started"] = (cloud["creates"] or ["ACTIVE"])[0], "READY", False
        cloud["creates"], cloud["label"] = cloud["creates"][1:], "--labels=labelfx-launch=" + words[5] in words
    elif "queued-resources delete" in text:
        cloud["request"] = "ABSENT"
    elif "worker.sh start" in text:
        cloud["started"] = True
    elif "worker.sh state" in text:
        look = cloud["looks"].pop(0) if cloud["started"] else ["none", "none"]
        if isinstance(look, dict):  # something happens to the slice
            cloud.update(look)
            return 1, "", "error: connection refused"
        return 0, "welcome\\n" + "\\n".join(look), "Using ssh batch size of 1."
    elif "queued-resources describe" in text and cloud["request"] != "ABSENT":
        labels = {"labelfx-launch": "a"} if cloud["label"] else {"somebody": "else"}
        state = {"state": cloud["request"], "failedData": {"error": {"message": "no quota"}}}
        return 0, json.dumps({"state": state, "tpu": {"nodeSpec": [{"node": {"labels": labels}}]}}), ""
    elif "tpu-vm describe" in text and cloud["node"] != "ABSENT":
        return 0, cloud["node"] + "\\n", ""
    elif " describe " in text:
        return 1, "", "ERROR: (gcloud) NOT_FOUND: Resource 'a' was not found"
    return 0, "", ""
'''
MAIN = """
import os, sys
path = os.path.join(os.path.dirname(sys.argv[0]), "cloud.json")
cloud = json.load(open(path))
code, out, err = play(cloud, [os.path.basename(sys.argv[0]), *sys.argv[1:]])
json.dump(cloud, open(path, "w"))
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Cloud:
    """What the fakes share."""

    def __init__(self, folder: Path):
        self.path = folder / "cloud.json"
        nothing = {"request": "ABSENT", "node": "READY", "started": False, "label": True, "creates": [], "changes": ""}
        self.path.write_text(json.dumps({**nothing, "looks": [["exit 0"] * 2], "failures": [], "calls": []}))

    def get(self) -> dict:
        return json.loads(self.path.read_text())

    def set(self, **values) -> None:
        self.path.write_text(json.dumps(self.get() | values))

    def calls(self, *words: str) -> list[list[str]]:
        """The recorded commands that have all these words in them."""
        return [call for call in self.get()["calls"] if all(word in " ".join(call) for word in words)]


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Cloud:
    """The fakes as programs."""
    for name in ("gcloud", "git"):
        write(tmp_path / "bin" / name, f"#!{os.path.realpath(sys.executable)} -IS\n{FAKE}{MAIN}")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Cloud(tmp_path / "bin")


@pytest.fixture
def cloud(programs, monkeypatch) -> Cloud:
    """The fakes without a process for each command."""
    names: dict = {}
    exec(FAKE, names)
    start = subprocess.run

    def run(words, **options):
        if words[0] not in ("gcloud", "git"):
            return start(words, **options)
        held = programs.get()
        code, out, err = names["play"](held, list(words))
        programs.set(**held)
        return subprocess.CompletedProcess(words, code, out, err)

    monkeypatch.setattr(subprocess, "run", run)
    return programs


def printed(capsys) -> list[list[str]]:
    """The commands that were announced."""
    return [shlex.split(line[2:]) for line in capsys.readouterr().out.splitlines() if line.startswith("+ ")]


def error(capsys) -> str:
    """The one line that a failure must be; retries are reported before it."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, lines
    return lines[0]


STEPS = [
    [*UP, "--", *ODD],
    [*UP, "--project=p", "--keep", "--gcloud=--network=n", "--runtime=r", "--", *ODD],
    ["create", *AT, "--accelerator=v6e-8"],
    ["setup", *AT, "--share=h:/s"],
    ["setup", *AT, "--share=h:/s", "--data=gs://b/c d"],
    ["run", *AT, "--", *ODD],
    ["status", *AT],
    ["logs", *AT, "--worker=all"],
    ["fetch", *AT, "--to=o o"],
    ["delete", *AT, "--yes"],
]


@pytest.mark.parametrize("words", STEPS, ids=lambda words: words[0])
def test_a_dry_run_prints_exactly_what_is_run(words, programs, capsys):
    split = words.index("--") if "--" in words else len(words)
    assert launch.main([*words[:split], "--dry_run", *words[split:]]) == 0
    announced = printed(capsys)
    assert announced and not programs.calls() and not (Path.home() / ".cache").exists()
    programs.set(request="ABSENT" if words[0] in ("up", "create") else "ACTIVE")
    assert launch.main(words) == 0
    assert programs.calls() == announced == printed(capsys)


def test_up_in_order(cloud, capsys):
    assert launch.main([*UP, "--", *ODD]) == 0
    at = ["--quiet", "--zone=z"]
    labels = ["--runtime-version=v2-alpha-tpuv5-lite", "--labels=labelfx-launch=a", "--spot"]
    (created,) = cloud.calls("create a")
    assert created == [*"gcloud compute tpus queued-resources create a --node-id=a".split()] + [
        "--accelerator-type=v5litepod-16",
        *labels,
        *at,
    ]
    steps = [
        "status",
        "bundle",
        "create a",
        "worker.sh a:",
        "worker.sh setup",
        "worker.sh start",
        "a:/mnt/labelfx/a",
        "delete",
    ]
    order = [next(i for i, call in enumerate(cloud.calls()) if step in " ".join(call)) for step in steps]
    assert order == sorted(order) and cloud.get()["request"] == "ABSENT"
    assert cloud.calls("worker.sh setup")[0][-3] == "--command=bash worker.sh setup 10.0.0.2:/share a.bundle"


def test_what_is_asked_for(cloud):
    for accelerator, runtime in {
        "v6e-8": "v2-alpha-tpuv6e",
        "v5p-8": "v2-alpha-tpuv5",
        "v4-8": "tpu-ubuntu2204-base",
    }.items():
        cloud.set(calls=[])
        assert launch.main(["create", *AT, f"--accelerator={accelerator}"]) == 0
        (created,) = cloud.calls("create a")
        assert f"--runtime-version={runtime}" in created and "--spot" not in created


@pytest.mark.parametrize(
    "what",
    [
        {"request": "SUSPENDED"},
        {"request": "FAILED"},
        {"node": "PREEMPTED"},
        {"node": "TERMINATED"},
        {"node": "ABSENT"},
    ],
    ids=str,
)
def test_what_is_lost_is_created_again_and_runs_the_same_command(what, cloud):
    cloud.set(looks=[["running"] * 2, what, ["running"] * 2, ["exit 0"] * 2])
    assert launch.main([*UP, "--", *ODD]) == 0
    for step, times in {
        "create a": 2,
        "worker.sh setup": 2,
        "worker.sh start": 2,
        "delete": 2,
        "bundle create": 1,
    }.items():
        calls = cloud.calls(step)
        assert len(calls) == times and all(call == calls[0] for call in calls), step
    assert len(cloud.calls("a:/mnt/labelfx/a")) == 1 and cloud.get()["request"] == "ABSENT"


def test_a_machine_that_booted_gets_everything_again(cloud):
    cloud.set(looks=[["running", "none"], ["exit 0", "running"], ["exit 0"] * 2])
    assert launch.main([*UP, "--", *ODD]) == 0
    assert [len(cloud.calls(step)) for step in ("create a", "worker.sh setup", "worker.sh start")] == [1, 2, 2]


def test_up_follows_what_runs_already_but_not_the_end_of_an_earlier_run(cloud):
    cloud.set(request="ACTIVE", started=True, looks=[["running"] * 2, ["exit 0"] * 2])
    assert launch.main([*UP, "--keep", "--", *ODD]) == 0
    assert not cloud.calls("create a") and not cloud.calls("worker.sh start") and not cloud.calls("delete")
    cloud.set(looks=[["exit 2"] * 2, ["exit 0"] * 2])
    assert launch.main([*UP, "--", *ODD]) == 0
    assert len(cloud.calls("worker.sh start")) == 1


def test_a_broken_connection_is_tried_again_and_in_the_end_the_slice_is_lost(cloud, capsys):
    cloud.set(looks=[["running"]] + [["exit 0"] * 2] * 2, failures=[["worker.sh setup", 3, "error: refused"]])
    assert launch.main([*UP, "--", *ODD]) == 0
    assert len(cloud.calls("create a")) == 1
    almost = [["running"]] + [{}] * (launch.PATIENCE - 1)
    cloud.set(looks=[*almost, *almost, ["exit 0"]], calls=[])
    assert launch.main([*UP, "--", *ODD]) == 0
    assert len(cloud.calls("create a")) == 1
    cloud.set(looks=[["running"]] + [{}] * launch.PATIENCE + [["exit 0"]], calls=[])
    assert launch.main([*UP, "--", *ODD]) == 0
    assert len(cloud.calls("create a")) == 2


def test_a_run_that_failed_is_fetched_and_its_slice_deleted(cloud, capsys):
    cloud.set(looks=[["running"] * 2, ["exit 1", "exit 2"]])
    assert launch.main([*UP, "--", *ODD]) == 1
    assert error(capsys) == "error: a: the run failed: exit 1, exit 2; its logs are in runs/a/logs"
    assert cloud.calls("a:/mnt/labelfx/a") and cloud.get()["request"] == "ABSENT"


def test_failures_are_one_line_and_leave_nothing(cloud, capsys):
    cloud.set(failures=[["worker.sh setup", 99, "error: no such package"]])
    assert launch.main([*UP, "--", *ODD]) == 1
    assert error(capsys) == "error: gcloud compute tpus tpu-vm ssh a: error: no such package (exit 1)"
    assert cloud.get()["request"] == "ABSENT" and len(cloud.calls("worker.sh setup")) == launch.PATIENCE

    cloud.set(failures=[["queued-resources delete", 99, "ERROR: not now"]], looks=[["exit 0"]])
    assert launch.main([*UP, "--", *ODD]) == 1
    assert "the run finished; but its slice MAY BE THERE STILL, AND COST: " in error(capsys)

    cloud.set(request="ABSENT", failures=[], creates=["FAILED"] * 99, calls=[])
    assert launch.main([*UP, "--", *ODD]) == 1
    assert error(capsys).endswith(
        f"{launch.PATIENCE} requests in a row came to nothing; the last: request FAILED: no quota"
    )
    assert cloud.get()["request"] == "ABSENT" and len(cloud.calls("create a")) == launch.PATIENCE

    assert launch.main(["create", *AT, "--accelerator=v4-8"]) == 1
    assert error(capsys) == "error: a: the request is FAILED: no quota; delete it"

    cloud.set(calls=[], changes=" M README.md")
    assert launch.main([*UP, "--", *ODD]) == 1
    assert "changes that are not committed" in error(capsys) and not cloud.calls("gcloud")


def test_no_gcloud_is_one_line(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert launch.main(["status", *AT]) == 1
    assert error(capsys) == "error: gcloud: No such file or directory"


def test_only_its_own_is_touched(cloud, capsys, monkeypatch):
    cloud.set(request="ACTIVE", label=False)
    for words in (["delete", *AT, "--yes"], [*UP, "--", *ODD]):
        assert launch.main(words) == 1
        why = "error: a: there is one without the label labelfx-launch=a, so not of this program's"
        assert error(capsys) == why
    assert not cloud.calls("delete") and not cloud.calls("ssh")
    cloud.set(label=True)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert launch.main(["delete", *AT]) == 1
    assert error(capsys) == "error: a: not deleted" and not cloud.calls("delete")


def test_ctrl_c_leaves_the_slice(cloud, capsys, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert launch.main([*UP, "--", *ODD]) == 130
    assert "a goes on, and costs" in capsys.readouterr().err and cloud.get()["request"] == "ACTIVE"


@pytest.mark.parametrize(
    "words, why",
    [
        (["run", *AT], "add, say, -- --config=simclr"),
        (["status", *AT, "--", "--config=simclr"], "nothing goes after --"),
        (["run", *AT, "--", "--workdir=x"], "--workdir after --"),
        (["setup", *AT, "--share=gs://bucket"], "must be HOST:/PATH of an NFS server, and no bucket"),
        (["status", "--name=A_b", "--zone=z"], "all lower case"),
        (["setup", *AT, "--share=h:/s", "--data=/home/me"], "--data=/home/me: must be gs://BUCKET/FOLDER or a disk"),
        (["create", *AT, "--accelerator=tpu7x-8"], "Google rents TPU7x through Kubernetes (GKE) only"),
    ],
)
def test_mistakes_in_the_command_line(words, why, capsys):
    with pytest.raises(SystemExit) as stopped:
        launch.main(words)
    assert stopped.value.code == 2 and why in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, text, place",
    [
        (["--config.data.name=folder:/mnt/labelfx/some pictures"], "", "/mnt/labelfx/some"),
        (["--config.data.name=tfds:imagenet2012", "--config.data.data_dir=/mnt/labelfx/tfds"], "", "/mnt/labelfx/tfds"),
        ([], 'data=dict(name="folder:/mnt/labelfx", image_size=224)', "/mnt/labelfx"),
        ([], 'data=dict(name="tfds:imagenet2012", data_dir="/mnt/labelfx/d")', "/mnt/labelfx/d"),
        (["--config.data.name=folder:/mnt/data/pictures"], "", None),
        (["--config.data.name=folder:/mnt/labelfx2"], "", None),
        (["--config.data.data_dir=/mnt/labelfx/cifar10"], 'data=dict(name="cifar10")', None),  # read once
    ],
)
def test_files_on_the_share_are_warned_of(words, text, place, cloud, tmp_path, capsys):
    (tmp_path / "own.py").write_text(text)
    assert launch.main(["run", *AT, "--", f"--config={tmp_path / 'own.py'}", *words]) == 0
    found = capsys.readouterr().err
    if place is None:
        assert found == ""
    else:
        assert found.startswith(f"warning: {place} is on the share, which") and found.count("\n") == 1


def finished(condition) -> bool:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_machine_of_a_slice(cloud, tmp_path, capsys):
    """The script that runs there, by the very words that ssh is given: its setup, and a run that ends in three ways."""
    home = Path.home()
    write(tmp_path / "bin/mountpoint", f'#!/bin/sh\ntest -e "{home}/mounted${{2##*/}}"\n')
    write(
        tmp_path / "bin/sudo",
        f'#!/bin/sh\necho "$@" >>{home}/sudo\nfor at; do :; done\n'
        f'case "$1" in mount) touch {home}/mounted"${{at##*/}}";; esac\n',
    )
    for tool in ("bin/git", "bin/python3", "home/.local/bin/uv"):
        write(tmp_path / tool, f'#!/bin/sh\nmkdir -p {home}/labelfx; echo "${{0##*/}}" "$@" >>{home}/tools\n')
    python = f"""#!/bin/sh
printf '%s\\n' "$@" >{home}/given.new && mv {home}/given.new {home}/given
while [ ! -e {home}/code ]; do sleep 0.05; done
exit $(cat {home}/code)
"""
    shutil.copy(FOLDER / "worker.sh", home)

    def remote(*words: str) -> subprocess.CompletedProcess:
        cloud.set(calls=[], request="ACTIVE", looks=[["none"]], started=True)
        launch.main([*words])
        capsys.readouterr()
        (command,) = [word for call in cloud.calls("ssh", "worker.sh") for word in call if "--command" in word]
        # gcloud splits at spaces, ssh joins again; the login shell does the rest.
        line = " ".join(command.removeprefix("--command=").split(" "))
        return subprocess.run(["bash", "-c", line], cwd=home, capture_output=True, text=True, timeout=60)

    def state() -> str:
        return remote("status", *AT).stdout.strip()

    setup = ["setup", *AT, "--share=10.0.0.2:/s s"]
    run = ["run", *AT, "--", *ODD]
    failed = remote(*run)
    assert failed.returncode == 1 and failed.stderr.strip().endswith("the share is not mounted; do the setup first")
    assert remote(*setup).returncode == 0
    assert "mount -t nfs -o hard,actimeo=0,lookupcache=none 10.0.0.2:/s s /mnt/labelfx" in (home / "sudo").read_text()
    tools = (home / "tools").read_text()
    assert (
        "git clone -q a.bundle labelfx\n" in tools
        and "uv pip install -q --python venv/bin/python -e ./labelfx[tpu]" in tools
    )
    assert not cloud.calls("storage")
    assert remote(*setup, "--data=gs://b/c d").returncode == 0
    assert cloud.calls("storage") == [["gcloud", *"storage rsync -q --recursive".split(), "gs://b/c d", "/mnt/data"]]
    for _ in range(2):  # which mount it once
        assert remote(*setup, "--data=/dev/sdb").returncode == 0
    assert (home / "sudo").read_text().count("mount -o ro,noload /dev/sdb /mnt/data\n") == 1
    tools = (home / "tools").read_text()
    write(home / "venv/bin/python", python)
    assert state() == "none"
    assert remote(*run).returncode == 0
    assert state() == "running"
    assert finished((home / "given").exists)
    given = (home / "given").read_text().splitlines()
    assert given == ["-m", "experiments.launch", "here", "--workdir=/mnt/labelfx/a", "--", *ODD]
    assert launch.parse(given[2:]).command == ODD
    (home / "given").unlink()
    assert remote(*run).returncode == 0 and not (home / "given").exists()  # no second one beside it
    assert remote(*setup).returncode == 0 and (home / "tools").read_text() == tools  # nothing is taken from under it
    for code, then in (("3", "exit 3"), ("0", "exit 0"), ("143", "none")):  # 143: the machine is going down
        (home / "code").write_text(code)
        assert finished(lambda: state() != "running")  # of the round before
        (home / "code").unlink()
        assert remote(*run).returncode == 0 and state() == "running"
        (home / "code").write_text(code)
        assert finished(lambda: state() != "running") and state() == then
    write(home / ".local/bin/uv", "#!/bin/sh\nexit 7\n")
    broken = remote(*setup)
    assert broken.returncode == 7 and "worker.sh setup failed at line" in broken.stderr


TRAIN = """#!/usr/bin/env bash
# Plays `python -m labelfx.train`: the Nth start saves the Nth of the steps and ends with the Nth of the codes.
cd "{folder}"
echo "$@" >>starts
n=$(wc -l <starts)
steps=({steps}) codes=({codes})
mkdir -p run/checkpoints/"${{steps[n - 1]}}" run/checkpoints/9.orbax-checkpoint-tmp
echo "words $n"
{more}
exit "${{codes[n - 1]}}"
"""


@pytest.fixture
def train(tmp_path, monkeypatch):
    def prepare(steps: str, codes: str, more: str = "") -> list[str]:
        write(tmp_path / "python", TRAIN.format(folder=tmp_path, steps=steps, codes=codes, more=more))
        (tmp_path / "starts").unlink(missing_ok=True)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return ["here", f"--workdir={tmp_path}/run", "--attempts=2", "--pause=0", "--", *ODD]

    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield prepare
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "steps, codes, starts",
    [
        ("1 2 3 4 5 6", "1 137 143 1 1 0", 6),  # it gets on
        ("2 2 2 2", "1 1 1 0", 3),  # it does not: --attempts=2
        ("1 1 2 2 2 2", "1 1 1 1 1 0", 5),
        ("1", "2", 1),  # a mistake
        ("1", "0", 1),
    ],
)
def test_here_resumes_after_a_crash(steps, codes, starts, train, tmp_path, capsys):
    code = int(codes.split()[starts - 1])
    assert launch.main(train(steps, codes)) == code
    said = capsys.readouterr()
    assert (said.err if code else said.out).endswith(f"exit code {code}: words {starts}\n")
    found = (tmp_path / "starts").read_text().splitlines()
    assert found == [f"-m labelfx.train --workdir={tmp_path}/run {' '.join(ODD)}"] * starts
    (log,) = (tmp_path / "run/logs").iterdir()
    assert all(f"words {n + 1}\n" in log.read_text() for n in range(starts))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_here_passes_a_stop_on_and_does_not_start_again(number, train, tmp_path):
    """And says 143 whatever the end looked like: several processes lose each other in a shutdown."""
    words = train("1 1 1", "1 1 1", 'trap "echo saved; exit 1" TERM; touch ready; while true; do sleep 0.05; done')
    code = f"import sys; from experiments.launch import __main__ as m; sys.executable = {str(tmp_path / 'python')!r}; "
    code += "sys.exit(m.main(sys.argv[1:]))"
    python = os.path.realpath(f"/proc/{os.getpid()}/exe")
    process = subprocess.Popen([python, "-c", code, *words], cwd=launch.ROOT, stderr=subprocess.PIPE)
    assert finished((tmp_path / "ready").exists)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 143 and len((tmp_path / "starts").read_text().splitlines()) == 1
    (log,) = (tmp_path / "run/logs").iterdir()
    assert "saved\n" in log.read_text()


@pytest.mark.parametrize(
    "code, state, end, requeued",
    [(0, "RUNNING", 0, False), (2, "RUNNING", 2, False), (143, "RUNNING", 0, True), (143, "CANCELLED", 143, False)],
)
def test_slurm_goes_back_into_the_queue_only_when_stopped(code, state, end, requeued, tmp_path):
    """SIGTERM comes to the script as well, which must outlive it."""
    write(tmp_path / "srun", f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/given\nkill -TERM $PPID\nexit {code}\n')
    write(tmp_path / "squeue", f"#!/bin/sh\necho {state}\n")
    write(tmp_path / "scontrol", f'#!/bin/sh\necho "$@" >{tmp_path}/requeued\n')
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    words = [str(FOLDER / "slurm.sh"), "--workdir=a b", *ODD]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == end, done.stderr
    assert (tmp_path / "given").read_text().splitlines() == ["python", "-m", "labelfx.train", "--workdir=a b", *ODD]
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 7\n"


def test_slurm_reads_its_options():
    """It stops reading at the first command."""
    lines = (FOLDER / "slurm.sh").read_text().splitlines()
    options = [line for line in lines[: lines.index("set -uo pipefail")] if line.startswith("#SBATCH")]
    assert {"#SBATCH --requeue", "#SBATCH --signal=TERM@120", "#SBATCH --open-mode=append"} <= set(options)


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_clean(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if shellcheck is None:
        pytest.skip("no shellcheck")
    subprocess.run([shellcheck, script], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="no gcloud")
def test_gcloud_knows_every_flag(tmp_path, capsys):
    """By its own check of commands, which needs no account and no network."""
    settings = {"CLOUDSDK_CONFIG": str(tmp_path), "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false"}
    for words in STEPS:
        launch.main([words[0], "--dry_run", *words[1:]])
    commands = {shlex.join(words) for words in printed(capsys) if words[0] == "gcloud"}
    for command in commands:
        check = ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={command}"]
        done = subprocess.run(check, env=os.environ | settings, capture_output=True, text=True)
        (found,) = json.loads(done.stdout)
        assert found["success"] is True, (command, found["error_message"])
