"""Time and peak memory of `preprocess` on one line scan of 16384 px × 40000 px.

    cargo build --release
    python benches/large_images.py [width height]

Writes a grey PNG, a grey TIFF in one strip that is not compressed, and an RGB BMP of a quarter of the width, each with a
mask as PNG, and preprocesses each alone to 512×256 px. Needs Python alone, and 2 GB of disk.
"""

import pathlib
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib

WIDTH, HEIGHT = (int(side) for side in sys.argv[1:3]) if len(sys.argv) > 2 else (16384, 40000)
PATCHFLOW = pathlib.Path(__file__).resolve().parent.parent / "target/release/patchflow"
MANIFEST = """
[experiment]
name = "large"

[stages]
data = { kind = "download", path = "data" }
images = { kind = "preprocess", input = "data", layout = "csv", height = 512, width = 256 }
"""


def rows(width, height, seed=1):
    """A texture: the rows of a random block, each shifted by another length."""
    block = random.Random(seed).randbytes(2 * width)
    for row in range(height):
        at = row * 977 % width
        yield bytes(block[at : at + width])


def mask_rows(width, height):
    for row in range(height):
        yield bytes(width // 2) + (b"\xff" * 40 if 1000 <= row < 1300 else bytes(40)) + bytes(width - width // 2 - 40)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_png(path, width, height, lines):
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)))
        deflate = zlib.compressobj(1)
        for line in lines:
            if content := deflate.compress(b"\0" + line):
                file.write(chunk(b"IDAT", content))
        file.write(chunk(b"IDAT", deflate.flush()) + chunk(b"IEND", b""))


def write_tiff(path, width, height, lines):
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, width * height)]
    with path.open("wb") as file:
        file.write(struct.pack("<2sHI", b"II", 42, 8 + width * height))
        file.writelines(lines)
        file.write(struct.pack("<H", len(tags)))
        for tag, kind, value in tags:
            file.write(struct.pack("<HHII", tag, kind, 1, value))
        file.write(bytes(4))


def write_bmp(path, width, height, lines):
    with path.open("wb") as file:
        file.write(struct.pack("<2sIII", b"BM", 0, 0, 54))
        file.write(struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0))
        file.writelines(lines)


def main():
    narrow = WIDTH // 16 * 4
    kinds = {
        "png": (write_png, WIDTH, rows(WIDTH, HEIGHT)),
        "tif": (write_tiff, WIDTH, rows(WIDTH, HEIGHT)),
        "bmp": (write_bmp, narrow, rows(3 * narrow, HEIGHT)),
    }
    for end, (write, width, lines) in kinds.items():
        folder = pathlib.Path(tempfile.mkdtemp(prefix="large-"))
        (folder / "data").mkdir()
        image = folder / f"data/scan.{end}"
        write(image, width, HEIGHT, lines)
        write_png(folder / "data/mask.png", width, HEIGHT, mask_rows(width, HEIGHT))
        (folder / "data/images.csv").write_text(f"path,split,label,mask\nscan.{end},train,,mask.png\n"
                                                    "part.bmp,train,good,\nother.bmp,test,good,\n")
        for name in ("part.bmp", "other.bmp"):
            write_bmp(folder / "data" / name, 64, 64, rows(3 * 64, 64, seed=len(name)))
        (folder / "large.toml").write_text(MANIFEST)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.time()
        command = [PATCHFLOW, "run", "large.toml", "--target", "images"]
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        seconds, used = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        size = image.stat().st_size >> 20
        cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        print(f"{end}: {width}×{HEIGHT} px, {size} MiB, {seconds:.1f} s, {cpu:.1f} s of processor time, "
              f"peak of this and the runs before {used.ru_maxrss >> 10} MiB")
        if answer.returncode:
            print(answer.stderr)
        shutil.rmtree(folder)


main()
