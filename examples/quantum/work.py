"""The files in the directory of a job: what a program reads and leaves there. Any program can do that by itself."""

import json
import os
import pathlib

DIRECTORY = pathlib.Path(os.environ.get("WORK_DIR", "/work"))

# 1 when the job is started for the first time, and one more after each time that it has waited for others.
ROUND = int(os.environ.get("HPC_QUEUE_ROUND", "1"))


def job():
    """`{"job_id", "task", "input", "metadata"}`"""
    return json.loads((DIRECTORY / "input.json").read_text())


def end(output):
    """Ends the job with this result."""
    write("output.json", output)


def wait_for(jobs, when="all"):
    """Has these jobs run, and this program started again when they have ended."""
    write("continue.json", {"run": jobs, "when": when})


def child(number):
    """The result of a job that was waited for; numbers go on from round to round, beginning with 1."""
    return json.loads((DIRECTORY / "children" / f"{number}.json").read_text())


def load(start):
    """What the round before has kept, or `start` in the first round.

    Each round has a file of its own. So a round that was cut off and is run again finds what it found the first time,
    and not what it had half done.
    """
    return start if ROUND == 1 else json.loads((DIRECTORY / f"state-{ROUND - 1}.json").read_text())


def keep(state):
    """Keeps something for the next round."""
    write(f"state-{ROUND}.json", state)


def write(name, value):
    """Writes a file whole or not at all: first beside its place."""
    beside = DIRECTORY / f".{name}.new"
    beside.write_text(json.dumps(value))
    beside.replace(DIRECTORY / name)
