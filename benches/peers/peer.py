"""What the scripts of this folder share: the interpreter that has the peers, our side, and a worker timed in rounds."""
import argparse
import json
import os
import pathlib
import platform
import subprocess
import venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# What holds the peers to AVX2 where the processor has more: faiss (the first names the library that its loader takes, the
# second the code inside a library that has all of it), OpenBLAS, PyTorch, and the libraries that PyTorch calls.
AVX2 = {
    "FAISS_OPT_LEVEL": "AVX2",
    "FAISS_SIMD_LEVEL": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def parser(doc, quick):
    """The options of every script: `--quick`, whose help is given, and `--python`."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help=f"under five minutes: {quick}")
    options.add_argument("--python", help="an interpreter that has the peers")
    return options


def hold(threads, avx2):
    """Holds this process, and so all that it starts, to as many cores as threads, and to AVX2 if asked.

    Gives the options with which our side is built for the same.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(0, cores)
        print(f"{processor()}, cores {', '.join(map(str, cores))}", flush=True)
    if not avx2:
        return []
    os.environ.update(AVX2)
    return ["--no-default-features"]


def processor():
    """The processor's own name, with family and model where Linux says them: virtual machines shorten the name."""
    file = pathlib.Path("/proc/cpuinfo")
    if not file.exists():
        return platform.processor() or platform.machine()
    values = dict([part.strip() for part in line.split(":", 1)] for line in file.read_text().splitlines() if ":" in line)
    return f"{values.get('model name', platform.machine())} (family {values.get('cpu family')}, model {values.get('model')})"


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
