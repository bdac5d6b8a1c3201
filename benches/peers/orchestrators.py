#!/usr/bin/env python3
"""The engine beside DVC and Snakemake: 200 trivial tasks, a grid of 10,000, a source of 5,000 files, also shared.

usage: benches/peers/orchestrators.py [--quick] [--bin PATH] [--venv FOLDER]

The peers come from PyPI into benches/peers/.venv-orchestrators, or into the folder that --venv names; b3sum is taken
from the PATH (Debian's package b3sum) and left out where it is not there. CPU seconds are those of the process and
its children (user + system); what is compared runs in turn, and medians are shown. --quick: fewer rounds, and the
peers' first runs only once. The last line is one JSON object.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import peer

TASKS = 200
WANTED = ["dvc==3.67.*", "snakemake==9.27.*"]
FILES, FILE_BYTES = 5000, 100_000


def peers(folder):
    """The folder of the peers' programs; they are installed if `dvc` is missing."""
    programs = peer.environment(folder)
    if not (programs / "dvc").exists():
        subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", *WANTED], check=True)
    return programs


def timed(command, folder, environment=None):
    """Runs a command; gives its CPU seconds and wall seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed in {folder}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def write_ours(folder):
    stages = [
        f'[stages.t{n}]\nkind = "command"\nrun = ["sh", "-c", "echo {n} > outputs/o/n"]\noutputs = {{ o = "files" }}\n'
        for n in range(TASKS)
    ]
    (folder / "patchflow.toml").write_text("")
    (folder / "m.toml").write_text('[experiment]\nname = "tasks"\n' + "".join(stages))


def write_dvc(folder, environment, programs):
    stages = "".join(f"  t{n}:\n    cmd: echo {n} > o{n}\n    outs: [o{n}]\n" for n in range(TASKS))
    (folder / "dvc.yaml").write_text("stages:\n" + stages)
    for command in (["init", "--no-scm", "-q"], ["config", "core.analytics", "false"]):
        subprocess.run([programs / "dvc", *command], cwd=folder, env=environment, check=True, capture_output=True)


def write_snakemake(folder):
    rules = "".join(f"rule t{n}:\n    output: 'o{n}'\n    shell: 'echo {n} > {{output}}'\n" for n in range(TASKS))
    targets = ", ".join(f"'o{n}'" for n in range(TASKS))
    (folder / "Snakefile").write_text(f"rule all:\n    input: {targets}\n" + rules)


def tasks_of_200(ours, programs, folder, rounds, environment):
    """First runs and no-ops of the three; (first wall s, no-op CPU s, no-op wall s) by name."""
    commands = {
        "patchflow": [ours, "run", "m.toml"],
        "dvc": [programs / "dvc", "repro", "-q"],
        "snakemake": [programs / "snakemake", "--cores", str(os.cpu_count()), "--quiet", "all"],
    }
    first, noop = {}, {name: [] for name in commands}
    for name in commands:
        (folder / name).mkdir()
    write_ours(folder / "patchflow")
    write_dvc(folder / "dvc", environment, programs)
    write_snakemake(folder / "snakemake")
    for name, command in commands.items():
        first[name] = timed(command, folder / name, environment)[1]
    for _ in range(rounds):
        for name, command in commands.items():
            noop[name].append(timed(command, folder / name, environment))
    return {
        name: (first[name], *(statistics.median(column) for column in zip(*noop[name]))) for name in commands
    }


def shells_alone(rounds):
    """Wall seconds of the same 200 programs with nothing around them, as many at once as there are cores."""
    script = f"seq {TASKS} | xargs -P {os.cpu_count()} -I N sh -c 'echo N > /dev/null'"
    return statistics.median(timed(["sh", "-c", script], "/")[1] for _ in range(rounds))


def plan_of_10000(ours, folder, rounds, environment):
    """Wall and CPU seconds of planning 10,000 tasks of which none has run."""
    values = list(range(5000))
    (folder / "patchflow.toml").write_text("")
    (folder / "m.toml").write_text(
        f'[experiment]\nname = "grid"\n[grid.axes]\nx = {values}\n'
        '[stages.a]\nkind = "command"\nrun = ["sh", "-c", "echo ${x} > outputs/o/n"]\noutputs = { o = "files" }\n'
        '[stages.b]\nkind = "command"\nrun = ["cp", "inputs/a/n", "outputs/o/n"]\ninputs = { a = "a" }\n'
        'outputs = { o = "files" }\n'
    )
    runs = [timed([ours, "plan", "m.toml"], folder, environment) for _ in range(rounds)]
    return statistics.median(cpu for cpu, _ in runs), statistics.median(wall for _, wall in runs)


def write_source(data):
    data.mkdir()
    block = os.urandom(FILE_BYTES)
    for n in range(FILES):
        (data / f"{n:05}.bin").write_bytes(n.to_bytes(4, "little") + block[4:])


def source_of_5000(ours, folder, rounds, environment):
    """CPU seconds to hash a source anew, by b3sum and by ours, and of ours when nothing has changed."""
    write_source(folder / "data")
    (folder / "patchflow.toml").write_text("")
    (folder / "m.toml").write_text('[experiment]\nname = "source"\n[stages.data]\nkind = "download"\npath = "data"\n')
    # A stat is trusted only once it is older than the row that names it.
    time.sleep(3)
    cold, warm, of_b3sum = [], [], []
    b3sum = shutil.which("b3sum")
    for _ in range(rounds):
        if b3sum:
            of_b3sum.append(timed(["sh", "-c", "b3sum data/* > /dev/null"], folder)[0])
        cold.append(timed([ours, "plan", "m.toml", "--paranoid"], folder, environment)[0])
        warm.append(timed([ours, "plan", "m.toml"], folder, environment)[0])
    median = statistics.median
    return median(of_b3sum) if of_b3sum else None, median(cold), median(warm)


def write_sharing(folder, programs, environment):
    """Two projects of each tool that use a source of 5,000 files; the first has its results."""
    data = folder / "data"
    write_source(data)
    for name in ("ours", "ours-elsewhere"):
        (folder / name).mkdir()
        (folder / name / "patchflow.toml").write_text("")
        (folder / name / "m.toml").write_text(
            f'[experiment]\nname = "s"\n[stages.data]\nkind = "download"\npath = "{data}"\n'
            '[stages.copy]\nkind = "command"\nrun = ["cp", "-rT", "inputs/data", "outputs/o"]\n'
            'inputs = { data = "data" }\noutputs = { o = "files" }\n'
        )
    (folder / "dvc").mkdir()
    for command in (
        ["init", "--no-scm", "-q"],
        ["config", "core.analytics", "false"],
        ["remote", "add", "-d", "r", folder / "dvc-remote"],
    ):
        subprocess.run([programs / "dvc", *command], cwd=folder / "dvc", env=environment, check=True)
    shutil.copytree(folder / "dvc", folder / "dvc-elsewhere")
    shutil.copytree(data, folder / "dvc/data")


def shared_5000(ours, programs, folder, rounds, environment):
    """(CPU s, wall s) of pushing 5,000 files to a remote folder, pushing again, pulling elsewhere, and of `cp -r`."""
    write_sharing(folder, programs, environment)
    dvc = programs / "dvc"
    timed([ours, "run", "m.toml"], folder / "ours", environment)
    timed([dvc, "add", "-q", "data"], folder / "dvc", environment)
    shutil.copy(folder / "dvc/data.dvc", folder / "dvc-elsewhere")
    remote = ["--remote", folder / "ours-remote"]
    commands = {
        "cp -r": (["cp", "-r", "data", "copy"], "."),
        "patchflow push": ([ours, "cache", "push", *remote], "ours"),
        "patchflow push again": ([ours, "cache", "push", *remote], "ours"),
        "dvc push": ([dvc, "push", "-q"], "dvc"),
        "dvc push again": ([dvc, "push", "-q"], "dvc"),
        "patchflow pull": ([ours, "cache", "pull", "m.toml", *remote], "ours-elsewhere"),
        "dvc pull": ([dvc, "pull", "-q"], "dvc-elsewhere"),
    }
    made = ("copy", "ours-remote", "dvc-remote", "ours-elsewhere/cache", "dvc-elsewhere/.dvc/cache", "dvc-elsewhere/data")
    times = {name: [] for name in commands}
    for _ in range(rounds):
        for name in made:
            subprocess.run(["rm", "-rf", folder / name], check=True)
        for name, (command, place) in commands.items():
            times[name].append(timed(command, folder / place, environment))
    return {name: tuple(statistics.median(column) for column in zip(*each)) for name, each in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under five minutes: fewer rounds")
    parser.add_argument("--bin", default=peer.ROOT / "target/release/patchflow", help="our program")
    parser.add_argument("--venv", default=peer.HERE / ".venv-orchestrators", help="where the peers are or will be")
    arguments = parser.parse_args()
    ours, programs = str(pathlib.Path(arguments.bin).resolve()), peers(arguments.venv)
    rounds = 3 if arguments.quick else 9
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        environment = {**os.environ, "XDG_CACHE_HOME": str(scratch / "user-cache"), "DVC_NO_ANALYTICS": "true"}
        folders = {name: scratch / name for name in ("tasks", "grid", "source", "shared")}
        for folder in folders.values():
            folder.mkdir()
        of_tasks = tasks_of_200(ours, programs, folders["tasks"], rounds, environment)
        alone = shells_alone(rounds)
        for name, (first, cpu, wall) in of_tasks.items():
            print(f"{TASKS} tasks  {name:10} first {first:6.2f} s wall   no-op {cpu:6.3f} CPU s, {wall:6.3f} s wall")
        print(f"{TASKS} tasks  the programs alone {alone:.2f} s wall")
        plan_cpu, plan_wall = plan_of_10000(ours, folders["grid"], rounds, environment)
        print(f"plan of 10,000 tasks  {plan_cpu:.3f} CPU s, {plan_wall:.3f} s wall")
        of_b3sum, cold, warm = source_of_5000(ours, folders["source"], rounds, environment)
        shown = f"b3sum {of_b3sum:.3f} CPU s" if of_b3sum else "b3sum is not installed"
        print(f"{FILES} files of {FILE_BYTES // 1000} kB  {shown}, cold {cold:.3f} CPU s, warm {warm:.3f} CPU s")
        sharing = shared_5000(ours, programs, folders["shared"], rounds, environment)
        for name, (cpu, wall) in sharing.items():
            print(f"{FILES} files shared  {name:20} {cpu:.2f} CPU s, {wall:.2f} s wall")
    noop = {name: cpu for name, (_, cpu, _) in of_tasks.items()}
    result = {
        "noop-200/cpu_s": round(noop["patchflow"], 4),
        "noop-200/dvc-ratio": round(noop["dvc"] / max(noop["patchflow"], 1e-3), 1),
        "noop-200/snakemake-ratio": round(noop["snakemake"] / max(noop["patchflow"], 1e-3), 1),
        "first-200/overhead_s": round(of_tasks["patchflow"][0] - alone, 3),
        "first-200/dvc-ratio": round(of_tasks["dvc"][0] / of_tasks["patchflow"][0], 1),
        "plan-10000/s": round(plan_wall, 3),
        "hash-5000/b3sum-ratio": round(cold / of_b3sum, 3) if of_b3sum else None,
        "warm-5000/cpu_s": round(warm, 4),
        **{
            f"{what}-5000/{name}": round(sharing[f"patchflow {what}"][column] / sharing[peer_name][column], 3)
            for what in ("push", "pull")
            for name, peer_name, column in (("dvc-cpu-ratio", f"dvc {what}", 0), ("cp-ratio", "cp -r", 1))
        },
        "second-push-5000/s": round(sharing["patchflow push again"][1], 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
