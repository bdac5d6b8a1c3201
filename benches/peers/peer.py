"""What the scripts of this folder share: the interpreter that has the peers, our side, a worker timed in rounds, and the
processor that all run on."""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def parser(doc, quick):
    """The options of every script: `--quick`, whose help is given, `--python` and `--avx2`."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help=f"under five minutes: {quick}")
    options.add_argument("--python", help="an interpreter that has the peers")
    options.add_argument("--avx2", action="store_true", help="hide AVX-512 from every program, theirs and ours (avx2.c)")
    return options


def cores():
    """The cores that this process, and so every program that it starts, may use."""
    return len(os.sched_getaffinity(0))


def hold(hides_avx512, threads=None):
    """Holds all programs that are started from now on to as many cores as threads, and to AVX2 if asked (avx2.c).

    Says which processor they get.
    """
    if threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if hides_avx512:
        library = pathlib.Path(tempfile.mkdtemp(prefix="avx2-")) / "avx2.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "avx2.c"], check=True)
        os.environ["LD_PRELOAD"] = str(library)
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    values = {part[0].strip(): part[1].strip() for part in (line.split(":", 1) for line in lines if ":" in line)}
    flags = values["flags"].split()
    found = [name for name in ("fma", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_tile") if name in flags]
    used = "AVX2, the others hidden" if hides_avx512 else "all"
    name = f"{values['model name']} (family {values['cpu family']}, model {values['model']})"
    print(f"processor: {name}, {cores()} cores; has {' '.join(found)}; used: {used}", file=sys.stderr)


def interpreter(given, packages, alone=()):
    """The interpreter that `--python` names, else the one of `.venv` with the packages installed from PyPI.

    Those in `alone` are installed without their dependencies.
    """
    if given:
        return given
    programs = environment(HERE / ".venv")
    pip = [programs / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *packages], check=True)
    if alone:
        subprocess.run([*pip, "--no-deps", *alone], check=True)
    return str(programs / "python")


def environment(folder):
    """The folder of programs of a virtual environment, which is made if it is missing."""
    programs = pathlib.Path(folder) / "bin"
    if not (programs / "python").exists():
        venv.create(folder, with_pip=True)
    return programs


def bench(name, *options):
    """Builds a bench of ours and returns the path of its program."""
    command = ["cargo", "bench", "--bench", name, "--no-run", "--message-format", "json", *options]
    built = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    messages = (json.loads(line) for line in built.splitlines() if line.startswith("{"))
    return next(m["executable"] for m in messages if m.get("target", {}).get("name") == name)


def patchflow():
    """Builds our program and returns its path."""
    subprocess.run(["cargo", "build", "--quiet", "--release"], cwd=ROOT, check=True)
    return str(ROOT / "target/release/patchflow")


class Worker:
    """A process that prepares, prints one line, and then prints its seconds for each line that it reads."""

    def __init__(self, command, stderr=None):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=stderr, text=True)
        self.first_line = self.process.stdout.readline().strip()
        self.seconds = []

    def run(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.seconds.append(float(self.process.stdout.readline()))

    def close(self):
        self.process.stdin.close()
        self.process.wait()
