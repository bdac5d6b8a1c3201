"""Makes the image files that decoding is tested with, and the pixels that Pillow reads from them.

Run with Pillow 13, NumPy 2, OpenCV, tifffile and imagecodecs from the repository's root:

    python tests/golden/images.py              writes tests/golden/images/
    python tests/golden/images.py compare      also prints where this OpenCV and Pillow differ

Files that no library writes are put together by hand, after the formats' specifications. `images.txt` has a line for
each file: how it is to be read (`exact`, or `near N` for the largest difference of a level from Pillow), and the PNG with
the expected pixels; or `refused` and words of the reason.
"""

import hashlib
import io
import pathlib
import struct
import sys
import zlib

import cv2
import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageOps

FOLDER = pathlib.Path(__file__).parent / "images"
H, W = 37, 43


def picture():
    """Returns smooth colours with an edge, 8 bits."""
    y, x = np.mgrid[:H, :W].astype(float)
    red = 120 + 90 * np.sin(x / 9) * np.cos(y / 7)
    green = 40 + 4 * x + 0 * y
    blue = 200 - 4 * y + 0 * x
    rgb = np.stack([red, green, blue], -1)
    rgb[10:20, 15:30] = (230, 60, 40)
    return rgb.clip(0, 255).round().astype(np.uint8)


RGB = picture()
GREY = RGB[..., 1].copy()
RGB16 = (RGB.astype(np.uint16) * 257) ^ np.arange(W, dtype=np.uint16)[None, :, None]
GREY16 = RGB16[..., 1].copy()
ALPHA = ((np.mgrid[:H, :W].sum(0) * 3) % 256).astype(np.uint8)
BITS = (GREY > 110).astype(np.uint8)
FILES = {}


def file(name, data, how="exact", pixels=None):
    """Adds a file. `pixels` are what is right where Pillow is known to differ."""
    assert name not in FILES, name
    FILES[name] = (bytes(data), how, pixels)


def refused(name, data, words):
    file(name, data, "refused " + words)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


# PNG


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(rows, depth):
    """Packs levels of 1, 2, 4, 8 or 16 bits into the bytes of each row."""
    rows = np.asarray(rows)
    rows = rows.reshape(rows.shape[0], -1)
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in rows]
    if depth == 8:
        return [row.astype(np.uint8).tobytes() for row in rows]
    out = []
    for row in rows:
        bits = "".join(format(int(v), f"0{depth}b") for v in row)
        bits += "0" * (-len(bits) % 8)
        out.append(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    return out


def png(levels, depth, kind, extra=(), interlaced=False):
    levels = np.asarray(levels)
    h, w = levels.shape[:2]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b""
    for y, x, dy, dx in passes:
        part = levels[y::dy, x::dx]
        if part.size:
            raw += b"".join(b"\0" + row for row in packed(part, depth))
    head = struct.pack(">IIBBBBB", w, h, depth, kind, 0, 0, int(interlaced))
    chunks = [chunk(b"IHDR", head), *(chunk(*pair) for pair in extra)]
    chunks += [chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def exif(orientation, order="<"):
    head = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
    return head + struct.pack(order + "HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)


def png_files():
    palette = bytes(range(0, 48)) + bytes(256 * 3 - 48)
    colours = np.frombuffer(RGB[::7, ::7].tobytes(), np.uint8).reshape(-1, 3)[:256]
    index = (np.mgrid[:H, :W].sum(0) % len(colours)).astype(np.uint8)
    many = colours.tobytes()
    file("png-grey1.png", png(BITS, 1, 0))
    file("png-grey2.png", png(GREY >> 6, 2, 0), pixels=(GREY >> 6) * 85)
    file("png-grey4.png", png(GREY >> 4, 4, 0), pixels=(GREY >> 4) * 17)
    file("png-grey8.png", png(GREY, 8, 0))
    file("png-grey16.png", png(GREY16, 16, 0), pixels=GREY16)
    file("png-rgb8.png", png(RGB, 8, 2))
    file("png-rgb16.png", png(RGB16, 16, 2), pixels=RGB16)
    file("png-grey-alpha8.png", png(np.dstack([GREY, ALPHA]), 8, 4), pixels=GREY)
    file("png-grey-alpha16.png", png(np.dstack([GREY16, GREY16[::-1]]), 16, 4), pixels=GREY16)
    file("png-rgba8.png", png(np.dstack([RGB, ALPHA]), 8, 6), pixels=RGB)
    file("png-rgba16.png", png(np.dstack([RGB16, GREY16]), 16, 6), pixels=RGB16)
    file("png-palette1.png", png(BITS, 1, 3, [(b"PLTE", b"\x0a\x14\x1e\xc8\xd2\xdc")]))
    file("png-palette4.png", png(GREY >> 4, 4, 3, [(b"PLTE", palette[:48])]))
    file("png-palette8.png", png(index, 8, 3, [(b"PLTE", many)]))
    file("png-palette8-transparent.png", png(index, 8, 3, [(b"PLTE", many), (b"tRNS", b"\0\x80")]))
    file("png-grey8-transparent.png", png(GREY, 8, 0, [(b"tRNS", struct.pack(">H", int(GREY[0, 0])))]))
    file("png-interlaced.png", png(RGB, 8, 2, interlaced=True))
    file("png-interlaced-grey1.png", png(BITS, 1, 0, interlaced=True))
    file("png-turned.png", png(RGB, 8, 2, [(b"eXIf", exif(6, ">"))]))
    refused("png-animated.png", png(RGB, 8, 2, [(b"acTL", struct.pack(">II", 1, 0))]), "animated")


# JPEG

# Upsampling of chroma differs: libjpeg-turbo interpolates in both directions at once.
NEAR = "near 13"


def jpeg_files():
    image = Image.fromarray(RGB)
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        file(f"jpeg-{name}.jpg", saved(image, "JPEG", quality=92, subsampling=subsampling), "near 3" if subsampling == 0 else NEAR)
        data = saved(image, "JPEG", quality=92, subsampling=subsampling, progressive=True)
        file(f"jpeg-{name}-progressive.jpg", data, "near 3" if subsampling == 0 else NEAR)
    for name, factor in (("440", 0x121111), ("411", 0x411111)):
        options = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
        file(f"jpeg-{name}.jpg", cv2.imencode(".jpg", RGB[..., ::-1], options)[1].tobytes(), NEAR)
    grey = Image.fromarray(GREY)
    file("jpeg-grey.jpg", saved(grey, "JPEG", quality=92), "near 3")
    file("jpeg-grey-progressive.jpg", saved(grey, "JPEG", quality=92, progressive=True), "near 3")
    # A grey JPEG that states sampling factors of 2, which have no meaning for one component.
    twice = bytearray(saved(grey, "JPEG", quality=92))
    at = twice.index(b"\xff\xc0") + 11
    twice[at] = 0x22
    file("jpeg-grey-factors.jpg", twice, "near 3")
    restarts = saved(image, "JPEG", quality=92, subsampling=0, restart_marker_blocks=3)
    file("jpeg-restarts.jpg", restarts, "near 3")
    file("jpeg-restarts-progressive.jpg", saved(image, "JPEG", quality=92, restart_marker_rows=1, subsampling=0, progressive=True), "near 3")
    file("jpeg-optimised.jpg", saved(image, "JPEG", quality=92, subsampling=0, optimize=True), "near 3")
    file("jpeg-rgb.jpg", saved(image, "JPEG", quality=95, subsampling=0, keep_rgb=True), "near 3")
    file("jpeg-after-end.jpg", saved(image, "JPEG", quality=92, subsampling=0) + bytes(100), "near 3")
    file("jpeg-fill-bytes.jpg", restarts.replace(b"\xff\xd9", b"\xff\xff\xff\xd9"), "near 3")
    file("jpeg-one-pixel.jpg", saved(image.crop((0, 0, 1, 1)), "JPEG", quality=92), "near 3")
    file("jpeg-exact.jpg", saved(image.crop((0, 0, 16, 16)), "JPEG", quality=92), NEAR)
    for orientation in (2, 3, 4, 5, 6, 7, 8):
        data = saved(image, "JPEG", quality=92, subsampling=0, exif=b"Exif\0\0" + exif(orientation))
        file(f"jpeg-orientation{orientation}.jpg", data, "near 3")
    contradiction = saved(image, "JPEG", quality=95, subsampling=0, keep_rgb=True).replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\1")
    refused("jpeg-colours.jpg", contradiction, "contradict each other")
    refused("jpeg-cmyk.jpg", saved(image.convert("CMYK"), "JPEG"), "CMYK or YCCK")
    refused("jpeg-12-bits.jpg", imagecodecs.jpeg_encode(RGB.astype(np.uint16) * 16, bitspersample=12), "12 bits")
    refused("jpeg-lossless.jpg", imagecodecs.ljpeg_encode(GREY16), "lossless")


# TIFF


def tiff(levels, **options):
    out = io.BytesIO()
    tifffile.imwrite(out, levels, metadata=None, **options)
    return out.getvalue()


def tiff_files():
    file("tiff-grey8.tif", tiff(GREY, photometric="minisblack"))
    file("tiff-grey16.tif", tiff(GREY16, photometric="minisblack"), pixels=GREY16)
    file("tiff-grey16-big-endian.tif", tiff(GREY16, photometric="minisblack", byteorder=">"), pixels=GREY16)
    file("tiff-grey16-lzw.tif", tiff(GREY16, photometric="minisblack", compression="lzw", predictor=True), pixels=GREY16)
    file("tiff-rgb8.tif", tiff(RGB, photometric="rgb"))
    file("tiff-rgb16.tif", tiff(RGB16, photometric="rgb"), pixels=RGB16)
    file("tiff-rgb8-lzw.tif", tiff(RGB, photometric="rgb", compression="lzw", rowsperstrip=5))
    file("tiff-rgb8-lzw-predictor.tif", tiff(RGB, photometric="rgb", compression="lzw", predictor=True))
    file("tiff-rgb8-deflate.tif", tiff(RGB, photometric="rgb", compression="zlib", rowsperstrip=7))
    file("tiff-rgb8-packbits.tif", tiff(RGB, photometric="rgb", compression="packbits"))
    file("tiff-rgb8-tiled.tif", tiff(RGB, photometric="rgb", tile=(16, 16)))
    file("tiff-grey16-tiled-deflate.tif", tiff(GREY16, photometric="minisblack", tile=(16, 32), compression="zlib"), pixels=GREY16)
    refused("tiff-tiled-lzw.tif", tiff(GREY16, photometric="minisblack", tile=(16, 32), compression="lzw"), "LZW compression in tiles")
    file("tiff-rgba8.tif", tiff(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=["unassalpha"]), pixels=RGB)
    file("tiff-planar.tif", tiff(np.moveaxis(RGB, -1, 0).copy(), photometric="rgb", planarconfig="separate"), pixels=RGB)
    file("tiff-bigtiff.tif", tiff(RGB, photometric="rgb", bigtiff=True))
    file("tiff-1-bit.tif", tiff(BITS.astype(bool), photometric="minisblack"))
    refused("tiff-1-bit-fax.tif", saved(Image.fromarray(BITS * 255).convert("1"), "TIFF", compression="group4"), "fax")
    file("tiff-white8.tif", tiff(GREY, photometric="miniswhite"), pixels=255 - GREY)
    file("tiff-white-1-bit.tif", tiff(BITS.astype(bool), photometric="miniswhite"), pixels=255 - BITS * 255)
    file("tiff-orientation6.tif", saved(Image.fromarray(RGB), "TIFF", tiffinfo={274: 6}))
    refused("tiff-planar-tiles.tif", tiff(np.moveaxis(RGB, -1, 0).copy(), photometric="rgb", planarconfig="separate", tile=(16, 16)), "tiles of single channels")
    refused("tiff-associated-alpha.tif", tiff(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=["assocalpha"]), "multiplied by its alpha")
    refused("tiff-white16.tif", tiff(GREY16, photometric="miniswhite"), "PhotometricInterpretation 0")
    refused("tiff-palette.tif", saved(Image.fromarray(RGB).quantize(64), "TIFF"), "palette")
    refused("tiff-float.tif", tiff(GREY.astype(np.float32), photometric="minisblack"), "floating-point")
    refused("tiff-signed.tif", tiff(GREY.astype(np.int16), photometric="minisblack"), "signed")
    refused("tiff-32-bits.tif", tiff(GREY.astype(np.uint32), photometric="minisblack"), "32 bits")
    refused("tiff-pages.tif", tiff(np.stack([GREY, GREY[::-1]]), photometric="minisblack"), "several pages")
    refused("tiff-cmyk.tif", saved(Image.fromarray(RGB).convert("CMYK"), "TIFF"), "CMYK")
    refused("tiff-ycbcr.tif", saved(Image.fromarray(RGB).convert("YCbCr"), "TIFF"), "YCbCr")
    refused("tiff-fill-order.tif", saved(Image.fromarray(BITS * 255).convert("1"), "TIFF", tiffinfo={266: 2}), "FillOrder")


# BMP


def bmp(rows, bits, w, h, compression=0, palette=b"", masks=b""):
    head = struct.pack("<IiiHHIIiiII", 40, w, h, 1, bits, compression, len(rows), 2835, 2835, len(palette) // 4, 0)
    start = 14 + len(head) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + masks + palette + rows


def padded(rows):
    return b"".join(row + b"\0" * (-len(row) % 4) for row in rows)


def run_length(levels):
    """RLE8 of every pixel, bottom row first."""
    out = b""
    for row in levels[::-1]:
        for value in row:
            out += bytes([1, int(value)])
        out += b"\0\0"
    return out + b"\0\1"


def bmp_files():
    greys = b"".join(bytes([v, v, v, 0]) for v in range(256))
    sixteen = b"".join(bytes([v * 17, 255 - v * 17, v, 0]) for v in range(16))
    file("bmp-rgb24.bmp", saved(Image.fromarray(RGB), "BMP"))
    file("bmp-grey8.bmp", saved(Image.fromarray(GREY), "BMP"))
    file("bmp-1-bit.bmp", saved(Image.fromarray(BITS * 255).convert("1"), "BMP"))
    file("bmp-palette4.bmp", bmp(padded(packed((GREY >> 4)[::-1], 4)), 4, W, H, palette=sixteen))
    file("bmp-top-down.bmp", bmp(padded(packed(GREY, 8)), 8, W, -H, palette=greys))
    inverted = b"".join(bytes([255 - v] * 3 + [0]) for v in range(256))
    file("bmp-inverted-palette.bmp", bmp(padded(packed(GREY[::-1], 8)), 8, W, H, palette=inverted))
    rgb32 = np.dstack([RGB[..., ::-1], ALPHA])
    file("bmp-rgb32.bmp", bmp(padded(packed(rgb32[::-1], 8)), 32, W, H), pixels=RGB)
    five = (RGB >> 3).astype(np.uint16)
    words = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2])[::-1]
    file("bmp-rgb555.bmp", bmp(padded([row.astype("<u2").tobytes() for row in words]), 16, W, H), "near 1")
    file("bmp-rle8.bmp", bmp(run_length(GREY), 8, W, H, 1, greys))
    skipping = b"\x05\x40\0\0" + b"\0\2\x03\x02" + b"\x04\x80\0\1"
    early = bytearray(bmp(padded(packed(GREY, 8)), 8, W, H, palette=greys))
    early[10:14] = struct.pack("<I", 54)
    refused("bmp-early-data.bmp", early, "within its palette")
    refused("bmp-rle8-skips.bmp", bmp(skipping, 8, W, H, 1, inverted), "skips pixels")


# WebP, PNM and others


def other_files():
    image = Image.fromarray(RGB)
    file("webp-lossless.webp", saved(image, "WEBP", lossless=True))
    file("webp-lossy.webp", saved(image, "WEBP", quality=90), "near 6")
    file("webp-alpha.webp", saved(Image.fromarray(np.dstack([RGB, np.maximum(ALPHA, 1)])), "WEBP", lossless=True, exact=True), pixels=RGB)
    file("webp-turned.webp", saved(image, "WEBP", lossless=True, exif=b"Exif\0\0" + exif(8)))
    # The EXIF data with the prefix that they have in a JPEG, as some programs write them.
    turned = saved(image, "WEBP", lossless=True, exif=exif(8))
    data = b"Exif\0\0" + exif(8)
    prefixed = turned[: turned.index(b"EXIF")] + b"EXIF" + struct.pack("<I", len(data)) + data
    file("webp-turned-prefix.webp", prefixed[:4] + struct.pack("<I", len(prefixed) - 8) + prefixed[8:])
    frames = [image, image.rotate(180)]
    refused("webp-animated.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=9), "animated")
    bits = padded_bits(1 - BITS)
    file("pnm-p1.pbm", b"P1 %d %d\n" % (W, H) + text(1 - BITS))
    file("pnm-p2.pgm", b"P2\n# a comment\n%d %d 255\n" % (W, H) + text(GREY))
    file("pnm-p3.ppm", b"P3 %d %d 255\n" % (W, H) + text(RGB))
    file("pnm-p4.pbm", b"P4 %d %d\n" % (W, H) + bits)
    file("pnm-p5.pgm", b"P5 %d %d 255\n" % (W, H) + GREY.tobytes())
    file("pnm-p5-100.pgm", b"P5 %d %d 100\n" % (W, H) + (GREY // 3).tobytes(), "near 1")
    file("pnm-p5-4095.pgm", b"P5 %d %d 4095\n" % (W, H) + (GREY16 >> 4).astype(">u2").tobytes(), "near 1", pixels=GREY)
    file("pnm-p5-65535.pgm", b"P5 %d %d 65535\n" % (W, H) + GREY16.astype(">u2").tobytes(), pixels=GREY16)
    file("pnm-p6.ppm", b"P6 %d %d 255\n" % (W, H) + RGB.tobytes())
    file("pnm-p6-65535.ppm", b"P6 %d %d 65535\n" % (W, H) + RGB16.astype(">u2").tobytes(), pixels=RGB16)
    file("pnm-p7.pam", b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" % (W, H) + RGB.tobytes(), pixels=RGB)
    refused("gif.gif", saved(image.quantize(16), "GIF"), "a GIF image")
    refused("numpy.npy", b"\x93NUMPY\x01\0" + bytes(64), "a NumPy array")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 46830571\n"
    refused("lfs.png", pointer.encode(), "Git LFS pointer")
    refused("empty.png", b"", "empty")


def padded_bits(bits):
    return b"".join(packed(bits, 1))


def text(levels):
    return b"\n".join(b" ".join(b"%d" % v for v in row) for row in levels.reshape(len(levels), -1)) + b"\n"


def jpeg_tiff_files():
    file("tiff-grey8-jpeg.tif", saved(Image.fromarray(GREY), "TIFF", compression="jpeg"), "near 3")
    file("tiff-rgb8-jpeg.tif", saved(Image.fromarray(RGB), "TIFF", compression="jpeg"), "near 3")


def read_with_pillow(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("RGBA", "LA", "P", "PA", "1", "L"):
        return np.array(image.convert("RGB"))
    if image.mode.startswith("I"):
        return np.array(image).astype(np.uint16)
    return np.array(image.convert("RGB"))


def rgb(levels):
    levels = np.asarray(levels)
    return levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, -1)


def main():
    png_files(), jpeg_files(), tiff_files(), bmp_files(), other_files(), jpeg_tiff_files()
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    lines, written = [], {}
    for name, (data, how, pixels) in FILES.items():
        (FOLDER / name).write_bytes(data)
        if how.startswith("refused"):
            lines.append(f"{name} {how}")
            continue
        expected = rgb(read_with_pillow(data) if pixels is None else pixels)
        is_deep = expected.dtype == np.uint16
        key = hashlib.sha256(expected.tobytes() + str(expected.shape).encode()).hexdigest()
        if key not in written:
            written[key] = f"right-{len(written):02}.png"
            (FOLDER / written[key]).write_bytes(png(expected, 16 if is_deep else 8, 2))
        lines.append(f"{name} {how} {written[key]}")
        if sys.argv[1:] == ["compare"]:
            compare(name, data, expected)
    (FOLDER / "images.txt").write_text("\n".join(lines) + "\n")
    print(len(FILES), "files", sum(f.stat().st_size for f in FOLDER.iterdir()), "bytes")


def compare(name, data, expected):
    """Prints how Pillow and OpenCV differ from what is expected."""
    said = []
    try:
        pillow = rgb(read_with_pillow(data))
        said.append(("Pillow " + Image.__version__, pillow))
    except Exception as error:
        print(f"{name}: Pillow: {error}")
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_ANYDEPTH if expected.dtype == np.uint16 else 0)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        print(f"{name}: OpenCV {cv2.__version__}: not read")
    else:
        said.append(("OpenCV " + cv2.__version__, image[..., ::-1]))
    for who, levels in said:
        if levels.shape != expected.shape or levels.dtype != expected.dtype:
            print(f"{name}: {who}: {levels.dtype}{list(levels.shape)} instead of {expected.dtype}{list(expected.shape)}")
        elif (worst := int(abs(levels.astype(int) - expected.astype(int)).max())) > 0:
            print(f"{name}: {who}: differs by up to {worst}")


main()
