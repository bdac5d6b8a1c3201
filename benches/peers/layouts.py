"""Compares what patchflow and anomalib 2.7 read of small trees of every layout that both have.

    cargo build --release
    python benches/peers/layouts.py --python PYTHON

PYTHON has anomalib 2.7 (`pip install anomalib==2.7.0 "pandas<3"`, with PyTorch several GB; with pandas 3 its readers of MVTec AD 2,
MVTec LOCO and tables fail); `--patchflow` names another binary.
Images and masks are noise of 20×30 px, made here. Compared are the images that are found, their labels, their splits (where
the data set has them), and every pixel of every image and mask. `clean` trees are as published: a difference ends with 1. `dirty` trees
have what people's copies have; the reader that is wrong is named in `EXPECTED`, and another answer ends with 1.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zlib

from peer import ROOT, interpreter, parser

HERE = pathlib.Path(__file__).resolve()


# Trees. Each function fills a folder; it runs in the other interpreter, which has Pillow and NumPy.


def makers():
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(20261129)

    def image(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)).save(path)

    def mask(path, level=255, count=9):
        path.parent.mkdir(parents=True, exist_ok=True)
        marks = np.zeros((20, 30), np.uint8)
        top, left = random.integers(0, 15, 2)
        marks[top : top + 4, left : left + count] = level
        Image.fromarray(marks).save(path)

    def mvtec(root, category="bottle", end="png", normal="good", suffix="_mask", kinds=("crack", "hole")):
        for n in range(4):
            image(root / category / f"train/{normal}/{n:03}.{end}")
        for n in range(3):
            image(root / category / f"test/{normal}/{n:03}.{end}")
            for kind in kinds:
                image(root / category / f"test/{kind}/{n:03}.{end}")
                if suffix is not None:
                    mask(root / category / f"ground_truth/{kind}/{n:03}{suffix}.png")

    def mvtec_ad_2(root):
        base = root / "can"
        for n in range(4):
            image(base / f"train/good/{n:03}_regular.png")
            image(base / f"validation/good/{n:03}_regular.png")
            image(base / f"test_public/good/{n:03}_shift_1.png")
            image(base / f"test_public/bad/{n:03}_overexposed.png")
            mask(base / f"test_public/ground_truth/bad/{n:03}_overexposed_mask.png")
            image(base / f"test_private/{n:03}_regular.png")

    def loco(root):
        coded(root / "pushpins", ("train", "validation"), 2, 3)

    def autovi(root, masks=1):
        coded(root / "pipe_clip", ("train",), masks, 4)

    def coded(base, splits, masks, digits):
        codes = [{"defect_name": str(c), "pixel_value": c, "saturation_threshold": 9, "relative_saturation": False} for c in (255, 254)]
        base.mkdir(parents=True)
        (base / "defects_config.json").write_text(json.dumps(codes))
        for split in splits:
            for n in range(3):
                image(base / f"{split}/good/{n:03}.png")
        for n in range(3):
            image(base / f"test/good/{n:03}.png")
            for kind in ("logical_anomalies", "structural_anomalies"):
                image(base / f"test/{kind}/{n:03}.png")
                for part in range(masks):
                    mask(base / f"ground_truth/{kind}/{n:03}/{part:0{digits}}.png", 255 - part % 2)

    def real_iad(root):
        base = root / "realiad_256/audiojack"
        lists = {"meta": {"prefix": "audiojack/", "normal_class": "OK"}, "train": [], "test": []}
        for n in range(8):
            label = "OK" if n < 5 else "AK"
            folder = f"OK/S{n:04}" if n < 5 else f"NG/AK/S{n:04}"
            name = f"{folder}/audiojack_{n:04}_{label}_C1.jpg"
            image(base / name)
            item = {"category": "audiojack", "anomaly_class": label, "image_path": name, "mask_path": None}
            if n >= 5:
                item["mask_path"] = f"{folder}/audiojack_{n:04}_{label}_C1_mask.png"
                mask(base / item["mask_path"])
            lists["train" if n < 3 else "test"].append(item)
        path = root / "realiad_jsons/realiad_jsons/audiojack.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(lists))

    def kolektor(root):
        for item in range(6):
            for part in range(2):
                image(root / f"kos{item:02}/Part{part}.jpg")
                path = root / f"kos{item:02}/Part{part}_label.bmp"
                mask(path, 255 if (item + part) % 2 else 0)

    def folders(root):
        for n in range(5):
            image(root / f"good/{n}.png")
            image(root / f"scratch/{n}.png")
            mask(root / f"masks/scratch/{n}.png")

    def upper(root):
        mvtec(root)
        image(root / "bottle/train/good/007.JPG")
        image(root / "bottle/test/good/008.jpg")

    def shifted(root):
        mvtec(root, kinds=("crack",))
        for n in range(3):
            (root / f"bottle/test/crack/{n:03}.png").rename(root / f"bottle/test/crack/{n + 1}.png")
            (root / f"bottle/ground_truth/crack/{n:03}_mask.png").rename(root / f"bottle/ground_truth/crack/1{n + 1}_mask.png")

    def bump(root):
        mvtec(root, "01", "png", "ok", "", ("ko",))
        (root / "01/test/ko/000.png").rename(root / "01/test/ko/lamp.png")
        (root / "01/ground_truth/ko/000.png").rename(root / "01/ground_truth/ko/lamp.png")

    def bmp_masks(root):
        mvtec(root, "03", "bmp", "ok", "", ("ko",))
        for path in list((root / "03/ground_truth/ko").iterdir()):
            Image.open(path).save(path.with_suffix(".bmp"))
            path.unlink()

    def turned(root):
        mvtec(root)
        for path in (root / "bottle/test/crack").iterdir():
            exif = Image.Exif()
            exif[0x112] = 3
            picture = Image.open(path).convert("RGB")
            marks = root / f"bottle/ground_truth/crack/{path.stem}_mask.png"
            Image.open(marks).transpose(Image.Transpose.ROTATE_180).save(marks)
            picture.save(path, exif=exif)

    return {
        "mvtec": mvtec,
        "mpdd": mvtec,
        "visa prepared": lambda root: mvtec(root, "candle", "JPG", "good", "", ("bad",)),
        "btad": lambda root: mvtec(root, "01", "bmp", "ok", "", ("ko",)),
        "mvtec_ad_2": mvtec_ad_2,
        "mvtec_loco": loco,
        "autovi": autovi,
        "real_iad": real_iad,
        "ksdd": kolektor,
        "folders": folders,
        "csv": folders,
        "vad": lambda root: mvtec(root, "vad", "png", "good", None, ("bad",)),
        "mvtec: .JPG among .png": upper,
        "mvtec: masks of other images": shifted,
        "mvtec: a mask is missing": lambda root: (mvtec(root), (root / "bottle/ground_truth/hole/001_mask.png").unlink()),
        "mvtec: a mask is empty": lambda root: (mvtec(root), mask(root / "bottle/ground_truth/hole/001_mask.png", 0)),
        "mvtec: EXIF orientation": turned,
        "btad: BMP masks": bmp_masks,
        "btad: an image lamp.png": bump,
        "autovi: several masks": lambda root: autovi(root, 3),
    }


# What anomalib reads, as {path: [label, split, mask as a string of 0 and 1, or None]}.


def anomalib_reads(name, root):
    from anomalib.data.datasets import image as sets
    from anomalib.data.utils import Split

    layout = name.split(":")[0]
    both = (Split.TRAIN, Split.TEST)
    make = {
        "mvtec": lambda split: sets.mvtecad.MVTecADDataset(root, "bottle", split=split),
        "mpdd": lambda split: sets.mpdd.MPDDDataset(root, "bottle", split=split),
        "visa prepared": lambda split: sets.visa.VisaDataset(root, "candle", split=split),
        "btad": lambda split: sets.btech.BTechDataset(root, os.listdir(root)[0], split=split),
        "mvtec_ad_2": lambda split: sets.mvtecad2.MVTecAD2Dataset(root, "can", split=split),
        "mvtec_loco": lambda split: sets.mvtec_loco.MVTecLOCODataset(root, "pushpins", split=split),
        "autovi": lambda split: sets.autovi.AutoVIDataset(root, "pipe_clip", split=split),
        "real_iad": lambda split: sets.realiad.RealIADDataset(root, "audiojack", 256, split=split),
        "ksdd": lambda split: sets.kolektor.KolektorDataset(root, split=split),
        "vad": lambda split: sets.vad.VADDataset(root, "vad", split=split),
        "folders": lambda split: sets.folder.FolderDataset("own", "good", root=root, abnormal_dir="scratch", mask_dir="masks/scratch", split=split),
        "csv": lambda split: sets.tabular.TabularDataset("own", tabular(root), root=root, split=split),
    }[layout]
    if layout in ("mvtec_ad_2", "mvtec_loco"):
        both = (Split.TRAIN, Split.VAL, Split.TEST)
    found = {}
    for split in both:
        data = make(split)
        for index in range(len(data)):
            item = data[index]
            mask = item.gt_mask
            marks = None if mask is None else "".join(map(str, (mask.numpy() > 0).astype(int).ravel()))
            path = str(pathlib.Path(item.image_path).relative_to(root.resolve()))
            word = {Split.TRAIN: "train", Split.VAL: "validation", Split.TEST: "test"}[split]
            levels = (item.image.numpy() * 255).round().astype("uint8").transpose(1, 2, 0)
            found[path] = [int(item.gt_label), word, marks, zlib.crc32(levels.tobytes())]
    return found


def tabular(root):
    """The same rows as `images.csv`."""
    rows = {"image_path": [], "label_index": [], "split": [], "mask_path": []}
    for path, label, split, mask in table(root):
        for column, value in zip(rows, (path, label, split, mask)):
            rows[column].append(value)
    return rows


def table(root):
    for n in range(5):
        yield f"good/{n}.png", 0, "train" if n < 3 else "test", ""
        yield f"scratch/{n}.png", 1, "test", f"masks/scratch/{n}.png"


def worker(job):
    name, root = job["name"], pathlib.Path(job["root"])
    if job["make"]:
        makers()[name](root)
        return {}
    try:
        return {"read": anomalib_reads(name, root)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}


def masks_of(folder):
    """What patchflow wrote, as {id: [label, split, mask]}; decoded in the other interpreter."""
    import numpy as np
    from PIL import Image

    found = {}
    for path in sorted((folder / "labels").rglob("*.png")):
        parts = path.relative_to(folder / "labels").with_suffix("").parts
        label = parts[1]
        name = "/".join(parts[2:] if label == "normal" else parts[3:])
        levels = np.array(Image.open(path))
        marks = None if (levels == 128).all() else "".join(map(str, (levels == 255).astype(int).ravel()))
        levels = np.array(Image.open(folder / "pixels/images" / f"{name}.png").convert("RGB"))
        found[name] = [int(label == "defect"), parts[0], marks, zlib.crc32(levels.tobytes())]
    return found


# patchflow


MANIFEST = """
[experiment]
name = "layouts"
seed = 1
[stages.dataset]
kind = "download"
path = "data"
[stages.images]
kind = "preprocess"
input = "dataset"
{fields}
[stages.copied]
kind = "command"
run = ["sh", "-c", "cp -rL inputs/set/. {out} && touch outputs/done/done"]
inputs = {{ set = "images" }}
outputs = {{ done = "files" }}
"""


def patchflow_reads(binary, name, project):
    out = project / "out"
    out.mkdir()
    layout = name.split(":")[0]
    fields = {"csv": 'layout = "csv"', "folders": "", "visa prepared": ""}.get(layout, "")
    (project / "patchflow.toml").write_text("")
    (project / "m.toml").write_text(MANIFEST.format(fields=fields, out=out))
    line = [binary, "run", "m.toml", "--target", "copied"]
    done = subprocess.run(line, cwd=project, capture_output=True, text=True)
    if done.returncode:
        text = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        return {"error": next((line for line in text if "has no mask" in line), text[-1] if text else "?")}
    return {"out": str(out)}


# The clean trees of which a difference is known, and the dirty ones: who is wrong.
EXPECTED = {
    "vad": "anomalib: fails without masks",
    "mvtec: .JPG among .png": "anomalib: passes over .JPG and .jpg without a word",
    "mvtec: masks of other images": "anomalib: pairs masks by order and by parts of names",
    "mvtec: a mask is missing": "both refuse; anomalib names no file",
    "mvtec: EXIF orientation": "anomalib: images are not turned",
    "btad: BMP masks": "anomalib: asks for .png",
    "btad: an image lamp.png": "anomalib: strips letters of the name",
    "autovi: several masks": "anomalib: reads the first mask alone",
}


def compare(ours, theirs, has_splits):
    """Returns the differences, as a list of sentences."""
    stem = {path.rsplit(".", 1)[0]: value for path, value in theirs.items()}
    # Ids leave out enclosing folders.
    pairs = {name: next((other for other in stem if other == name or other.endswith("/" + name)), None) for name in ours}
    only_ours = [name for name, other in pairs.items() if other is None]
    only_theirs = sorted(set(stem) - set(pairs.values()))
    found = []
    if only_ours:
        found.append(f"{len(only_ours)} images only in patchflow ({only_ours[0]})")
    if only_theirs:
        found.append(f"{len(only_theirs)} images only in anomalib ({only_theirs[0]})")
    labels, splits, masks, pixels = 0, 0, 0, 0
    for name, other in pairs.items():
        if other is None:
            continue
        label, split, marks, levels = ours[name]
        their_label, their_split, their_marks, their_levels = stem[other]
        labels += label != their_label
        splits += has_splits and split != their_split
        masks += (marks or "") != (their_marks or "") and "1" in (marks or "") + (their_marks or "")
        pixels += levels != their_levels
    # Decoders of JPEG round differently.
    pixels *= not any(path.lower().endswith((".jpg", ".jpeg")) for path in theirs)
    found += [f"{count} {what} differ" for count, what in ((labels, "labels"), (splits, "splits"), (masks, "masks"), (pixels, "pictures")) if count]
    return found


def ask(python, jobs):
    done = subprocess.run([python, str(HERE), "--worker"], input=json.dumps(jobs), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    options = parser(__doc__, "the same")
    options.add_argument("--patchflow", default=str(ROOT / "target/release/patchflow"))
    options.add_argument("--keep", help="a new folder for the trees")
    given = options.parse_args()
    python = interpreter(given.python, ["anomalib==2.7.0", "pandas<3", "pillow"])
    names = ask(python, {"names": True})
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(given.keep or folder)
        projects = {name: folder / name.replace(":", "").replace(" ", "_").replace(".", "") for name in names}
        roots = {name: str(project / "data") for name, project in projects.items()}
        ask(python, {"jobs": [{"name": name, "root": roots[name], "make": True} for name in names]})
        head = "path,label,split,mask\n"
        rows = "".join(f"{path},{label},{split},{mask}\n" for path, label, split, mask in table(None))
        (pathlib.Path(roots["csv"]) / "images.csv").write_text(head + rows)
        ours = {name: patchflow_reads(str(pathlib.Path(given.patchflow).resolve()), name, projects[name]) for name in names}
        jobs = [{"name": name, "root": roots[name], "make": False} for name in names]
        theirs = ask(python, {"jobs": jobs, "outs": {name: one["out"] for name, one in ours.items() if "out" in one}})
    wrong = 0
    for name in names:
        left, right = ours[name], theirs["answers"][name]
        if "out" in left:
            left = {"read": theirs["outs"][name]}
        if "error" in left or "error" in right:
            found = [f"{who}: {side['error']}" for who, side in (("patchflow", left), ("anomalib", right)) if "error" in side]
        else:
            found = compare(left["read"], right["read"], name not in ("ksdd", "folders"))
        is_expected = bool(found) == (name in EXPECTED)
        wrong += not is_expected
        count = len(left.get("read", {}))
        print(f"{name}: {count} images; {'; '.join(found) or 'equal'}{' — ' + EXPECTED[name] if name in EXPECTED else ''}"
              f"{'' if is_expected else '  <-- not expected'}")
    sys.exit(wrong > 0)


def serve():
    given = json.load(sys.stdin)
    if "names" in given:
        answer = list(makers())
    else:
        answer = {"answers": {job["name"]: worker(job) for job in given["jobs"]},
                  "outs": {name: masks_of(pathlib.Path(out)) for name, out in given.get("outs", {}).items()}}
    print(json.dumps(answer))


if __name__ == "__main__":
    serve() if "--worker" in sys.argv else main()
