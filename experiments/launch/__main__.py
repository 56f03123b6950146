"""Runs labelfx on a rented TPU slice, or on this machine: `python -m experiments.launch up --name=N ... -- --config=C`.

Needs Python, git and gcloud, and nothing of labelfx. README.md beside this file goes through it.
"""

import argparse
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MOUNT = "/mnt/labelfx"  # where the share is on every machine of a slice, see worker.sh
DATA = "/mnt/data"  # where --data is
LABEL = "labelfx-launch"  # on what this program created, and so may delete
RUNTIMES = {"v5litepod": "v2-alpha-tpuv5-lite", "v5p": "v2-alpha-tpuv5", "v6e": "v2-alpha-tpuv6e"}
GONE = ("FAILED", "SUSPENDED")  # states of a request that never come to anything again
FINE = ("READY", "CREATING", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING")  # of a slice that is not lost
PATIENCE = 10  # failures in a row before they are no accident


class Failure(RuntimeError):
    """Something did not work; the message is one line for the user."""


class Refused(Failure):
    """Trying again would not help."""


class Slice:
    """A TPU slice, by name: what may be done with it, each by commands that are printed before they run.

    A dry run only prints them, and takes what it asks for to be there and well.
    """

    def __init__(self, flags: argparse.Namespace):
        self.flags = flags
        self.name: str = flags.name
        self.workdir = f"{MOUNT}/{self.name}"
        self.created = flags.dry_run and flags.do not in ("create", "up")
        self.started = False
        self.bundle: Path | None = None

    def call(self, *words: str, found: str = "", stream: bool = False) -> str:
        """Runs a command and returns what it prints; `found` in a dry run. `stream`: the user sees it instead."""
        print("+ " + shlex.join(words), flush=True)
        if self.flags.dry_run:
            return found
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=not stream, text=True)
        except OSError as error:
            raise Failure(f"{words[0]}: {error.strerror}") from error
        if done.returncode:
            said = [line.strip() for line in f"{done.stdout or ''}\n{done.stderr or ''}".splitlines() if line.strip()]
            errors = [line for line in said if re.match("error|fatal|E:", line, re.IGNORECASE)]
            raise Failure(f"{' '.join(words[:6])}: {(errors or said[-1:] or ['no word'])[0]} (exit {done.returncode})")
        return done.stdout or ""

    def gcloud(self, *words: str, found: str = "", stream: bool = False) -> str:
        where = [f"--zone={self.flags.zone}", *([f"--project={self.flags.project}"] if self.flags.project else [])]
        return self.call("gcloud", "compute", "tpus", *words, "--quiet", *where, found=found, stream=stream)

    def ssh(self, worker: str, *words: str, found: str = "", stream: bool = False) -> str:
        command = f"--command={shlex.join(words)}"
        return self.gcloud("tpu-vm", "ssh", self.name, f"--worker={worker}", command, found=found, stream=stream)

    def request(self) -> tuple[str, str]:
        """The state of the request, ABSENT if there is none, and why it failed.

        Raises:
          Refused: it was not created by this program.
        """
        spec = {"labels": {LABEL: self.name}} if self.created else {}
        dry = {"state": {"state": "ACTIVE" if self.created else "ABSENT"}, "tpu": {"nodeSpec": [{"node": spec}]}}
        try:
            answer = self.gcloud("queued-resources", "describe", self.name, "--format=json", found=json.dumps(dry))
        except Failure as failure:
            if "NOT_FOUND" not in str(failure):
                raise
            return "ABSENT", ""
        found = json.loads(answer)
        state, spec = found["state"], found.get("tpu", {}).get("nodeSpec", [{}])[0].get("node", {})
        if state["state"] != "ABSENT" and not self.created and spec.get("labels", {}).get(LABEL) != self.name:
            raise Refused(f"{self.name}: there is one without the label {LABEL}={self.name}, so not of this program's")
        return state["state"], state.get("failedData", {}).get("error", {}).get("message", "")

    def node(self) -> str:
        """The state of the slice itself, ABSENT if there is none. A preempted one may be gone before its request is."""
        try:
            return self.gcloud("tpu-vm", "describe", self.name, "--format=value(state)", found="READY").strip()
        except Failure as failure:
            if "NOT_FOUND" not in str(failure):
                raise
            return "ABSENT"

    def create(self) -> None:
        """Puts a request for the slice in the queue."""
        family = self.flags.accelerator.rpartition("-")[0]
        runtime = self.flags.runtime or RUNTIMES.get(family, "tpu-ubuntu2204-base")
        what = [
            f"--node-id={self.name}",
            f"--accelerator-type={self.flags.accelerator}",
            f"--runtime-version={runtime}",
        ]
        more = [f"--labels={LABEL}={self.name}", *(["--spot"] if self.flags.spot else []), *self.flags.gcloud]
        self.gcloud("queued-resources", "create", self.name, *what, *more)
        self.created = True

    def delete(self) -> None:
        """Deletes the slice and its request, if there; what is on the share stays."""
        if self.request()[0] != "ABSENT":
            self.gcloud("queued-resources", "delete", self.name, "--force")
        self.created = self.started = False

    def pack(self) -> Path:
        """Writes the commit of this checkout to a file, once: later commits are not for a run that has begun."""
        if self.bundle is None:
            git = ("git", "-C", str(ROOT))
            if self.call(*git, "status", "--porcelain", "--untracked-files=no"):
                raise Failure(
                    f"{ROOT}: has changes that are not committed, so would not get to the machines; commit them"
                )
            self.bundle = Path.home() / ".cache" / "labelfx" / f"{self.name}.bundle"
            if not self.flags.dry_run:
                self.bundle.parent.mkdir(parents=True, exist_ok=True)
            self.call(*git, "bundle", "create", "--quiet", str(self.bundle), "HEAD")
        return self.bundle

    def setup(self) -> None:
        """Brings labelfx to every machine that is not running it, installs it, mounts the share, brings the data."""
        bundle, script = self.pack(), Path(__file__).with_name("worker.sh")
        self.gcloud("tpu-vm", "scp", str(bundle), str(script), f"{self.name}:", "--worker=all")
        data = [self.flags.data] if self.flags.data else []
        self.ssh("all", "bash", "worker.sh", "setup", self.flags.share, bundle.name, *data)

    def start(self) -> None:
        """Starts the run on every machine where it is not running."""
        self.ssh("all", "bash", "worker.sh", "start", self.workdir, *self.flags.command)
        self.started = True

    def states(self) -> list[str]:
        """Of the run, on each machine: `running`, `exit CODE`, or `none`, also after a boot in the middle of it."""
        there = "exit 0" if self.started else "none"
        script = "if [ -f worker.sh ]; then bash worker.sh state; else echo none; fi"
        answer = self.ssh("all", "bash", "-c", script, found=there)
        found = [line for line in answer.splitlines() if re.fullmatch(r"running|none|exit \d+", line)]
        if not found:
            raise Failure(f"{self.name}: no machine said whether the run is running")
        return found

    def logs(self) -> None:
        tail = f"tail -n 100 -F {shlex.quote(self.workdir)}/logs/$(hostname).log"
        self.ssh(self.flags.worker, "bash", "-c", tail, stream=True)

    def fetch(self) -> None:
        """Copies the run's folder from the share into the folder `--to`."""
        if not self.flags.dry_run:
            Path(self.flags.to).mkdir(parents=True, exist_ok=True)
        self.gcloud("tpu-vm", "scp", f"{self.name}:{self.workdir}", self.flags.to, "--worker=0", "--recurse")

    def pause(self) -> None:
        if not self.flags.dry_run:
            time.sleep(self.flags.poll)


def follow(machine: Slice) -> str:
    """Looks, does the one next thing, and looks again, until the run `finished` or `failed: ...`.

    What is lost is created again and the same command is started there: training resumes from its folder on the share.
    """
    seen, worked, failures, fruitless = "", False, 0, 0
    while True:
        try:
            state, reason = machine.request()
            node = machine.node() if state == "ACTIVE" else ""
            seen = report(
                machine, seen, f"request {state}" + f", slice {node}" * bool(node) + f": {reason}" * bool(reason)
            )
            if state == "ABSENT":
                machine.create()
            elif state in GONE or (node and node not in FINE):
                fruitless = 0 if worked else fruitless + 1
                machine.delete()
                if fruitless == PATIENCE:
                    raise Refused(f"{machine.name}: {PATIENCE} requests in a row came to nothing; the last: {seen}")
                worked = False
            elif node == "READY":
                states = machine.states()
                if "none" in states or not (machine.started or "running" in states):
                    machine.setup()
                    machine.start()
                else:
                    worked = machine.started = True
                    if "running" not in states:
                        return "finished" if set(states) == {"exit 0"} else f"failed: {', '.join(sorted(set(states)))}"
            failures = 0
        except Refused:
            raise
        except Failure as failure:
            failures += 1
            if failures == PATIENCE and not worked:
                raise
            print(f"{time.strftime('%H:%M:%S')} {failure}", file=sys.stderr, flush=True)
            if failures == PATIENCE:
                machine.delete()  # it ran and is out of reach: as good as lost
                worked, failures = False, 0
        machine.pause()


def report(machine: Slice, before: str, now: str) -> str:
    if now != before:
        print(f"{time.strftime('%H:%M:%S')} {machine.name}: {now}", flush=True)
    return now


def up(machine: Slice) -> None:
    """Everything, from whatever is there to a finished run in `--to`. Leaves no slice, unless it is interrupted."""
    machine.pack()
    try:
        outcome = follow(machine)
        machine.fetch()
        if outcome != "finished":
            raise Failure(f"{machine.name}: the run {outcome}; its logs are in {machine.flags.to}/{machine.name}/logs")
    except KeyboardInterrupt:
        print(
            f"{machine.name} goes on, and costs; the same command follows it again, `delete` ends it", file=sys.stderr
        )
        raise
    except Refused:  # there is none, or not ours
        raise
    except Failure as failure:
        end(machine, str(failure))
        raise
    end(machine, f"{machine.name}: the run finished")


def end(machine: Slice, news: str) -> None:
    """Deletes the slice, unless `--keep`: nobody may be looking, and it costs."""
    if machine.flags.keep:
        return
    try:
        machine.delete()
    except Failure as failure:
        raise Failure(f"{news}; but its slice MAY BE THERE STILL, AND COST: {failure}") from failure


def create(machine: Slice) -> None:
    """A slice, when this returns. A request waits in a queue, for minutes or for days, and costs nothing there."""
    machine.create()
    seen = ""
    while seen != "ACTIVE":
        state, reason = machine.request()
        if state in (*GONE, "ABSENT"):
            raise Failure(f"{machine.name}: the request is {state}: {reason or 'no reason given'}; delete it")
        seen = report(machine, seen, state)
        if seen != "ACTIVE":
            machine.pause()


def delete(machine: Slice) -> None:
    """The slice and its request; what is on the share stays."""
    if not (machine.flags.yes or machine.flags.dry_run):
        print(f"delete the slice {machine.name} in {machine.flags.zone}? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() != "y":
            raise Failure(f"{machine.name}: not deleted")
    machine.delete()


def status(machine: Slice) -> None:
    """The state of the request, of the slice, and of the run on each machine."""
    state, reason = machine.request()
    node = machine.node() if state == "ACTIVE" else "ABSENT"
    print(f"request: {state} {reason}\nslice:   {node}")
    if node == "READY":
        print(f"run:     {', '.join(machine.states())}")


def here(flags: argparse.Namespace) -> int:
    """Trains on this machine; after a crash again, which resumes. Returns the exit code.

    Not after a mistake in the configuration, when told to stop, or when `--attempts` in a row made no new checkpoint.
    """
    workdir = Path(flags.workdir)
    log = workdir / "logs" / f"{socket.gethostname()}.log"
    command = [sys.executable, "-m", "labelfx.train", f"--workdir={workdir}", *flags.command]
    print(f"+ {shlex.join(command)}\nits log: tail -F {shlex.quote(str(log))}", flush=True)
    if flags.dry_run:
        return 0
    log.parent.mkdir(parents=True, exist_ok=True)
    told: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def stop(number: int, _: object) -> None:
        told.append(number)
        if child is not None:
            child.terminate()  # which saves first

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    fruitless, before = 0, newest_checkpoint(workdir)
    while True:
        with log.open("a") as out:
            print(f"{time.strftime('%F %T')} + {shlex.join(command)}", file=out, flush=True)
            # In a session of its own: Ctrl-C must not reach it but as the signal on which it saves.
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
            if told:
                child.terminate()
            code = child.wait()
            code = 128 - code if code < 0 else code
            ended = f"exit code {code}: {log.read_text(errors='replace').rstrip().rpartition(chr(10))[2]}"
            print(f"{time.strftime('%F %T')} exit code {code}", file=out)
        newest = newest_checkpoint(workdir)
        fruitless, before = 0 if newest > before else fruitless + 1, newest
        if told and code:
            code = 143  # whatever the end looked like
        if code in (0, 2) or told or fruitless == flags.attempts:
            print(ended, file=sys.stderr if code else sys.stdout)
            return code
        print(f"{ended}; again in {flags.pause:g} s, from step {newest}", file=sys.stderr, flush=True)
        time.sleep(flags.pause)


def newest_checkpoint(workdir: Path) -> int:
    return max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdecimal()), default=0)


FLAGS: dict[str, dict[str, Any]] = {
    "dry_run": {"action": "store_true", "help": "only print the commands"},
    "name": {"required": True, "help": "of the slice, and of the run's folder on the share"},
    "zone": {"required": True, "help": "such as us-west4-a"},
    "project": {"help": "gcloud's own by default"},
    "accelerator": {"required": True, "help": "such as v5litepod-16: the kind, and how many chips"},
    "spot": {"action": "store_true", "help": "much cheaper, and may be taken away at any time"},
    "runtime": {"help": "the system of the machines; that of the accelerator by default"},
    "gcloud": {
        "action": "append",
        "default": [],
        "help": "a further flag of `queued-resources create`; can be repeated",
    },
    "poll": {"type": float, "default": 60.0, "help": "seconds between two looks"},
    "share": {"required": True, "help": "HOST:/PATH of an NFS server in the network of the slice"},
    "data": {"help": f"gs://BUCKET/FOLDER to copy to {DATA} of every machine, or the read-only disk to mount there"},
    "to": {"default": "runs", "help": "the folder that the run's folder is copied into"},
    "keep": {"action": "store_true", "help": "do not delete the slice in the end"},
    "worker": {"default": "0", "help": "a machine's number, or all"},
    "yes": {"action": "store_true", "help": "do not ask"},
    "workdir": {"required": True, "help": "the run's folder"},
    "attempts": {"type": int, "default": 5, "help": "to give up after, if none in a row made a new checkpoint"},
    "pause": {"type": float, "default": 45.0, "help": "seconds before a restart; other machines notice within 35"},
}
SLICE = ("name", "zone", "project")
REQUEST = ("accelerator", "spot", "runtime", "gcloud", "poll")
COMMANDS: dict[str, tuple[str, tuple[str, ...], Callable[[Slice], None]]] = {
    "up": ("all that follows, again after each preemption", (*SLICE, *REQUEST, "share", "data", "to", "keep"), up),
    "create": ("request a slice and wait for it", (*SLICE, *REQUEST), create),
    "setup": ("bring labelfx to its machines, mount the share", (*SLICE, "share", "data"), Slice.setup),
    "run": ("start labelfx.train there, and return", SLICE, Slice.start),
    "status": ("of the request, the slice and the run", SLICE, status),
    "logs": ("follow what a machine says", (*SLICE, "worker"), Slice.logs),
    "fetch": ("copy the run's folder from the share", (*SLICE, "to"), Slice.fetch),
    "delete": ("delete the slice, but nothing on the share", (*SLICE, "yes"), delete),
}


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line; `command` is what stands after `--`."""
    split = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(prog="python -m experiments.launch", allow_abbrev=False)
    parser.description = "labelfx.train on a rented TPU slice, or here. Its own flags go after --, at the end."
    actions = parser.add_subparsers(dest="do", required=True, metavar="COMMAND")
    found = {name: (meaning, flags) for name, (meaning, flags, _) in COMMANDS.items()}
    found["here"] = ("train on this machine, again after a crash", ("workdir", "attempts", "pause"))
    for name, (meaning, flags) in found.items():
        action = actions.add_parser(name, help=meaning, description=meaning, allow_abbrev=False)
        for flag in (*flags, "dry_run"):
            action.add_argument(f"--{flag}", **FLAGS[flag])
    given = parser.parse_args(words[:split])
    given.command = list(words[split + 1 :])
    if bool(given.command) != (given.do in ("up", "run", "here")):
        parser.error(f"{given.do}: " + ("nothing goes after --" if given.command else "add, say, -- --config=simclr"))
    if any(re.match("--?workdir", word) for word in given.command):
        parser.error("--workdir after --: the run's folder is given before it, by --workdir for `here`, else by --name")
    if given.do != "here" and not re.fullmatch("[a-z]([-a-z0-9]{0,60}[a-z0-9])?", given.name):
        parser.error(f"--name={given.name}: must be a letter, then letters, digits and -, all lower case, at most 62")
    if getattr(given, "accelerator", "").startswith("tpu7x"):
        parser.error(f"--accelerator={given.accelerator}: Google rents TPU7x through Kubernetes (GKE) only")
    if not re.fullmatch("[^:/]+:/[^:/][^:]*", getattr(given, "share", "host:/path")):
        parser.error(f"--share={given.share}: must be HOST:/PATH of an NFS server, and no bucket")
    if not re.fullmatch("gs://[^/].*|/dev/.+", getattr(given, "data", None) or "/dev/none"):
        parser.error(f"--data={given.data}: must be gs://BUCKET/FOLDER or a disk of the machines such as /dev/sdb")
    return given


def files_on_share(command: Sequence[str]) -> str:
    """The place on the share, if any, whose image files a run of this command would read as it trains."""
    config = next((Path(word.partition("=")[2]) for word in command if re.match("--?config=", word)), Path())
    text = "\n".join([*command, config.read_text() if config.is_file() else ""])
    where = "folder:" if "tfds:" not in text else r"data_dir\W*"
    found = re.search(rf"""{where}({MOUNT}\b[^\s"',)]*)""", text)
    return found[1] if found else ""


def main(words: Sequence[str]) -> int:
    flags = parse(words)
    try:
        if flags.do == "here":
            return here(flags)
        if place := files_on_share(flags.command):
            print(
                f"warning: {place} is on the share, which gives the whole slice 100 MB, some 900 ImageNet pictures, a "
                f"second where v5litepod-16 takes 23,000; --data=gs://BUCKET/FOLDER brings them to {DATA}",
                file=sys.stderr,
            )
        COMMANDS[flags.do][2](Slice(flags))
    except KeyboardInterrupt:
        return 130
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
