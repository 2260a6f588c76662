"""A stand-in for sbatch on a cluster of one node: reads options as it does, and runs the job.

Options stand before the script; those of its #SBATCH lines come first, and the command line's win.
All that follows the script are its arguments. The job runs here and now, the tasks of an array in
turn, with the variables that Slurm sets; its output goes to slurm-ID.out. As with sbatch, the exit
code says only that the job was accepted: the file `jobs` in $STAND_IN_SLURM has its state.
"""

import getopt
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

NUMBER, ANY = r"\d+", r".+"
# Options that take a value, each with its letter and what the value must look like.
VALUES = {
    "account": ("A", ANY),
    "array": ("a", r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%\d+)?"),
    "constraint": ("C", ANY),
    "cpus-per-task": ("c", NUMBER),
    "dependency": ("d", r"singleton|(after|afterany|afternotok|afterok)(:\d+)+"),
    "export": ("", ANY),
    "gpus-per-node": ("", r"(\w+:)?\d+"),
    "gres": ("", ANY),
    "job-name": ("J", ANY),
    "kill-on-invalid-dep": ("", "yes|no"),
    "mem": ("", r"\d+[KMGT]?"),
    "mem-per-cpu": ("", r"\d+[KMGT]?"),
    "nodes": ("N", r"\d+(-\d+)?"),
    "ntasks": ("n", NUMBER),
    "ntasks-per-node": ("", NUMBER),
    "open-mode": ("", "append|truncate"),
    "output": ("o", ANY),
    "partition": ("p", ANY),
    "qos": ("q", ANY),
    "signal": ("", r"([RB]+:)?(\d+|[A-Z]+\d?)(@\d+)?"),
    "time": ("t", r"(\d+-)?\d+(:\d\d){0,2}"),
    "wrap": ("", ANY),
}
FLAGS = {"exclusive": "", "hold": "H", "no-requeue": "", "parsable": "", "requeue": "", "wait": "W"}
LETTERS = {letter: name for name, (letter, _) in VALUES.items() if letter}
LETTERS |= {letter: name for name, letter in FLAGS.items() if letter}
SHORT = "".join(f"{letter}:" if name in VALUES else letter for letter, name in LETTERS.items())
LONG = [*(f"{name}=" for name in VALUES), *FLAGS]


def main() -> None:
    """Accept a job or refuse it, and run it."""
    options, words = parse(sys.argv[1:])
    if "wrap" in options:
        if words:
            refuse("Script arguments not permitted with --wrap option")
        command = ["bash", "-c", options["wrap"]]
    else:
        if not words:
            refuse("Batch script is missing")
        command = ["bash", *words]
        options = directives(Path(words[0])) | options
    jobs = Path(os.environ["STAND_IN_SLURM"], "jobs")
    states = json.loads(jobs.read_text(encoding="utf-8")) if jobs.exists() else {}
    number = str(1 + len(states))
    if options.get("nodes", "1") != "1":
        refuse("Requested node configuration is not available: this cluster has one node")
    ready = may_run(options.get("dependency", ""), states)
    print(number if "parsable" in options else f"Submitted batch job {number}", flush=True)
    codes = [run(command, number, options, task) for task in tasks_of(options)] if ready else []
    states[number] = "CANCELLED" if not ready else "FAILED" if any(codes) else "COMPLETED"
    jobs.write_text(json.dumps(states), encoding="utf-8")


def parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the options before the first other word, by their long names, and the rest."""
    try:
        found, rest = getopt.getopt(words, SHORT, LONG)
    except getopt.GetoptError as error:
        refuse(error.msg)
    options = {}
    for flag, value in found:
        name = flag[2:] if flag.startswith("--") else LETTERS[flag[1:]]
        if name in VALUES and not re.fullmatch(VALUES[name][1], value):
            refuse(f"Invalid --{name} specification: {value}")
        options[name] = value
    return options, rest


def directives(script: Path) -> dict[str, str]:
    """Return the options of the #SBATCH lines that stand before the first command of a script."""
    try:
        lines = script.read_text(encoding="utf-8").splitlines()
    except OSError:
        refuse(f"Unable to open file {script}")
    if not lines or not lines[0].startswith("#!"):
        refuse("This does not look like a batch script: its first line must start with #!")
    words: list[str] = []
    for line in lines:
        if line.startswith("#SBATCH"):
            words += line.split()[1:]
        elif line.strip() and not line.startswith("#"):
            break
    options, rest = parse(words)
    if rest:
        refuse(f"Invalid directive found in batch script: {' '.join(rest)}")
    return options


def may_run(dependency: str, states: dict[str, str]) -> bool:
    """Tell whether a dependency is met; jobs before this one have ended."""
    kind, *numbers = dependency.split(":")
    if unknown := [number for number in numbers if number not in states]:
        refuse(f"Job dependency problem: there is no job {unknown[0]}")
    accepted = {"afterok": ["COMPLETED"], "afternotok": ["FAILED", "CANCELLED"]}.get(kind)
    return accepted is None or all(states[number] in accepted for number in numbers)


def tasks_of(options: dict[str, str]) -> list[dict[str, str]]:
    """Return the variables of each task of an array, or of the one task of a plain job."""
    if "array" not in options:
        return [{}]
    numbers: list[int] = []
    for part in options["array"].partition("%")[0].split(","):
        first, last, step = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part).groups()  # type: ignore[union-attr]
        numbers += range(int(first), int(last or first) + 1, int(step or 1))
    whole = {"COUNT": len(numbers), "MIN": min(numbers), "MAX": max(numbers)}
    return [
        {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in {**whole, "ID": n}.items()}
        for n in numbers
    ]


def run(command: list[str], number: str, options: dict[str, str], task: dict[str, str]) -> int:
    """Run a job, or a task of its array, and return its exit code."""
    variables = {
        "SLURM_JOB_ID": number,
        "SLURM_JOB_NAME": options.get("job-name", Path(command[1]).name),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": options.get("nodes", "1"),
        "SLURM_SUBMIT_DIR": os.getcwd(),
    }
    # Slurm sets these where the option was given.
    for name, variable in (("cpus-per-task", "CPUS_PER_TASK"), ("ntasks", "NTASKS")):
        if name in options:
            variables[f"SLURM_{variable}"] = options[name]
    if "gpus-per-node" in options:
        variables["SLURM_GPUS_ON_NODE"] = options["gpus-per-node"].rpartition(":")[2]
    if task:
        variables |= {"SLURM_ARRAY_JOB_ID": number, **task}
    output = f"slurm-{'_'.join([number, *filter(None, [task.get('SLURM_ARRAY_TASK_ID')])])}.out"
    with open(output, "ab") as log:
        return subprocess.run(
            command, env=os.environ | variables, stdout=log, stderr=log
        ).returncode


def refuse(reason: str) -> NoReturn:
    """Exit as sbatch does for a job that it does not accept."""
    sys.exit(f"sbatch: error: {reason}")


if __name__ == "__main__":
    main()
