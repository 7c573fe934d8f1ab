"A folder as people have them: odd names, entries that are no images, images that are not eight bits of RGB."
import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from initpools.data import images as datasets
from initpools.core import UserError
from initpools.data.images import REDUCED, SCALED, TURNED, decode, load, picture
from initpools.pretext.features import features_of, open_features
from initpools.data.files import list_files, read_image, read_told, source

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["plain.png", "copy of plain.png", "line\nbreak.png", "carriage\rreturn.png", "next\x85line.png",
         "separator\u2028.png", os.fsdecode(b"latin-\xe9.png"), "-rf.png",
         "😀.png", '"quoted".png', " space .png", "tab\t.png", "two\n\nbreaks.PNG"]
ODD = {"lost.jpg": "a link to a file that is not there", "round.jpg": "a link that leads back to itself",
       "folder.jpg": "a folder", "pipe.png": "a pipe, socket or device",
       "socket.png": "a pipe, socket or device", "device.png": "a pipe, socket or device", "zero.png": "an empty file",
       "text.jpg": "not an image that can be read, whatever its name says",
       "phone.heic": "a HEIC image, which needs the package pillow-heif",
       "phone.jpg": "a HEIC image, which needs the package pillow-heif",
       "shut.png": "no permission to read it", os.fsdecode(b"lost \xe9\n.jpg"): "a link to a file that is not there"}
QUARTERS = {  # what the four quarters of an image have to be, from left to right and from above
    "sixteen.png": (0, 64, 128, 255), "sixteen.tif": (0, 64, 128, 255), "signed.tif": (0, 64, 128, 255),
    "float.tif": (0, 64, 0, 255), "turned.png": (30, 10, 40, 20), "turned.jpg": (30, 10, 40, 20),
    "turned16.png": (128, 0, 255, 64), "cmyk.jpg": (10, 20, 30, 40), "palette.png": (10, 255, 30, 40),
    "glass.png": (10, 255, 30, 40), "grey glass.png": (10, 255, 30, 40),
    "panorama.png": (0, 255, 0, 255), "dot.png": (77, 77, 77, 77), "thread.png": (78, 78, 78, 78)}
SCRIPT = """
import json, resource, sys
sys.modules["pillow_heif"] = None  # as where it is not installed
sys.path.insert(0, sys.argv[4])
from initpools.pretext.features import features_of
out = []
for _ in range(2):
    f = features_of(sys.argv[1], "train", "pixels", root=sys.argv[2], device="cpu")
    out.append([str(f.folder), f.names(), f.manifest.skipped, f.manifest.notes, f.manifest.told(), f.pool(), len(f)])
    if len(out) == 1: out.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
print(json.dumps(out))
"""


def quarters(a, b, c, d, kind=np.uint8): return np.kron(np.array([[a, b], [c, d]], kind), np.ones((32, 32), kind))


def grey(values): return Image.fromarray(np.repeat(values[..., None], 3, 2))


def paint(folder):
    "Images of all modes and depths, turned, transparent, large and small."
    for i, name in enumerate(NAMES): grey(np.full((40, 50), max(i, 1), np.uint8)).save(folder/name, "PNG")
    wide = quarters(1000, 11000, 21100, 41000, np.uint16)
    turned = Image.Exif()
    values = quarters(10, 20, 30, 40)
    turned[0x0112] = 6
    Image.fromarray(wide).save(folder/"sixteen.png")
    Image.fromarray(wide).save(folder/"sixteen.tif")
    Image.fromarray(wide).save(folder/"turned16.png", exif=turned)
    Image.fromarray(wide.astype(np.int32) - 30_000).save(folder/"signed.tif")
    Image.fromarray(quarters(-1, 0, np.nan, 3, np.float32)).save(folder/"float.tif")
    grey(values).save(folder/"turned.png", exif=turned)
    grey(values).save(folder/"turned.jpg", exif=turned, quality=95)
    grey(values).convert("CMYK").save(folder/"cmyk.jpg", quality=95)
    clear = np.where(values == 20, 0, 255).astype(np.uint8)
    Image.fromarray(np.stack([values] * 3 + [clear], 2)).save(folder/"glass.png")
    Image.fromarray(np.stack([values, clear], 2), "LA").save(folder/"grey glass.png")
    palette = Image.fromarray(values // 10, "P")
    palette.putpalette([v for i in range(256) for v in (10 * i % 256,) * 3])
    palette.save(folder/"palette.png", transparency=2)
    long = Image.new("1", (20_000, 10_000))
    long.paste(1, (10_000, 0, 20_000, 10_000))
    long.save(folder/"panorama.png")
    grey(np.full((1, 1), 77, np.uint8)).save(folder/"dot.png")
    grey(np.full((500, 1), 78, np.uint8)).save(folder/"thread.png")
    grey(values).save(folder/"shut.png")
    (folder/"shut.png").chmod(0)


def litter(folder):
    "What bears an image's name and is none: links, pipes, sockets, folders, other files."
    for hidden in (".thumb.png", "._plain.png"): (folder/hidden).write_bytes(b"hidden")
    (folder/"notes.txt").write_text("no image")
    for name in ("lost.jpg", os.fsdecode(b"lost \xe9\n.jpg")): (folder/name).symlink_to("nowhere")
    (folder/"round.jpg").symlink_to("round.jpg")
    (folder/"device.png").symlink_to("/dev/zero")
    (folder/"circle").symlink_to(".")
    (folder/"folder.jpg").mkdir()
    grey(quarters(10, 20, 30, 40)).save(folder/"folder.jpg"/"inside.png")
    os.mkfifo(folder/"pipe.png")
    here = os.getcwd()
    os.chdir(folder)
    try: socket.socket(socket.AF_UNIX).bind("socket.png")
    finally: os.chdir(here)
    (folder/"zero.png").touch()
    (folder/"text.jpg").write_text("not an image")
    for name in ("phone.heic", "phone.jpg"): (folder/name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def make(folder):
    "The ugly folder."
    folder.mkdir()
    paint(folder)
    litter(folder)


def as_anybody():
    "A user who may not read everything: for root, without what lets root do so."
    libc = ctypes.CDLL(None)
    for capability in (1, 2): libc.prctl(24, capability, 0, 0, 0)


def run(data, root, cwd):
    "Features of a folder, made and asked for again in a process of its own, which may not wait for ever."
    done = subprocess.run([sys.executable, "-c", SCRIPT, data, str(root), "", str(ROOT)], cwd=cwd, capture_output=True,
                          text=True, timeout=200, preexec_fn=as_anybody)
    assert done.returncode == 0, done.stderr[-2000:]
    one, peak, two = json.loads(done.stdout)
    assert one == two
    return (*one, peak)


@pytest.fixture(scope="module")
def ugly(tmp_path_factory):
    "The folder, what reading it gave, and the features."
    home = tmp_path_factory.mktemp("ugly")
    make(home/"photos")
    (home/"elsewhere").mkdir()
    facts = run(f"folder:{home/'photos'}", home/"data", home)
    return home, facts, open_features(facts[0])


def test_every_name_and_row_belong_together(ugly):
    "Names come back exactly, and the row of each is the row of its image."
    home, (_, names, *_), f = ugly
    assert f.names() == names and sorted(names) == sorted([*NAMES, *QUARTERS]) and len(f) == len(names)
    for i, name in enumerate(NAMES):
        assert set(np.rint(np.asarray(f.x[names.index(name)], float) * 255)) == {max(i, 1)}, name
    for name in names: assert (home/"photos"/name).is_file()


def test_each_odd_file_is_listed_with_its_reason(ugly):
    "All of them, in the manifest, and in a sentence that a terminal can show."
    _, (_, _, skipped, _, told, *_), f = ugly
    assert dict(map(tuple, skipped)) == ODD and len(skipped) == len(ODD)
    assert f.manifest.skipped == tuple(map(tuple, skipped)) and f.manifest.n == len(f) + len(ODD)
    assert told[0].startswith(f"{len(ODD)} of {len(ODD) + len(f)} image files cannot be read and are skipped: ")
    for text in told:
        text.encode()
        assert len(text.splitlines()) == 1


@pytest.mark.parametrize("name", QUARTERS)
def test_images_are_read_right(ugly, name):
    "Scaled, turned, on white, reduced: streamed and in memory alike."
    home, (_, names, *_), f = ugly
    x = np.rint(np.asarray(f.x[names.index(name)], float) * 255).reshape(3, 32, 32)
    for size, inner in ((32, x), (48, decode(home/"photos"/name, 48)[0].transpose(2, 0, 1).astype(float))):
        a, b = size // 8, size - 1 - size // 8
        for channel in inner:
            assert np.abs(channel[[a, a, b, b], [a, b, a, b]] - QUARTERS[name]).max() <= 3 * name.endswith(".jpg"), name


def test_what_was_done_is_counted(ugly):
    _, (_, _, _, notes, told, _, _, peak), _ = ugly
    assert notes == {SCALED: 5, TURNED: 3, REDUCED: 1}
    assert f"5 {SCALED}" in told and SCALED == "images of 16 bit or float values were scaled by their own range"


def test_another_folder_to_stand_in_changes_nothing(ugly):
    home, facts, _ = ugly
    assert run("folder:../photos", home/"data", home/"elsewhere")[:7] == facts[:7]


def test_a_panorama_takes_little_memory(tmp_path):
    "200 million pixels: the RGB version alone would be 0.8 GB; a JPEG is not even decoded whole."
    Image.new("L", (20_000, 10_000), 99).save(tmp_path/"long.jpg")
    Image.new("1", (20_000, 10_000), 1).save(tmp_path/"long.png")
    look = ("import resource, sys; sys.path.insert(0, sys.argv[1])\nfrom initpools.data.files import read_told; from "
            "initpools.data.images import decode\ndef peak(): return "
            "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6\nfor read, file in ((decode, sys.argv[2]), "
            "(read_told, sys.argv[3])):\n    before = peak(); x, notes = read(file, 224); print(x.min(), x.max(), "
            "len(notes), peak() - before)")
    done = subprocess.run([sys.executable, "-c", look, str(ROOT), tmp_path/"long.jpg", tmp_path/"long.png"],
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    (*jpeg, light), (*png, heavy) = (map(float, line.split()) for line in done.stdout.splitlines())
    assert (jpeg, png) == ([99, 99, 1], [255, 255, 1]) and light < .1 and heavy < .4, (light, heavy)


def test_a_claimed_size_does_not_fill_the_memory(tmp_path):
    "A small file that says it is 60,000 pixels wide and high is left out with its reason."
    import struct
    import zlib
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (tmp_path/"bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
                                      + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    limit = Image.MAX_IMAGE_PIXELS
    x, (why,) = read_told(tmp_path/"bomb.png", 32)
    assert (x is None and why == "60000 x 60000 pixels take 14.4 GB, more than 2 GB: make it smaller"
            and Image.MAX_IMAGE_PIXELS == limit)


def test_ordinary_images_stay_as_they_were(tmp_path):
    "Eight bits of RGB without EXIF: the formula of earlier versions, to the byte."
    from PIL import ImageOps
    rng = np.random.default_rng(0)
    for i, size in enumerate(((64, 64), (500, 375), (33, 90), (1300, 900))):
        file = tmp_path/f"{i}.jpg"
        Image.fromarray(rng.integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), dtype=np.uint8)).resize(
            size).save(file)
        with Image.open(file) as im:
            whole = np.asarray(ImageOps.fit(im.convert("RGB"), (64, 64), Image.Resampling.BILINEAR))
        with Image.open(file) as im:
            short = round(96 / .875)
            im.draft("RGB", (short, short))
            im = im.convert("RGB")
            s = short / min(im.size)
            (w, h) = (max(short, round(v * s)) for v in im.size)
            x, y = (w - 96) / 2 / s, (h - 96) / 2 / s
            middle = np.asarray(im.resize((96, 96), Image.Resampling.BILINEAR, (x, y, x + 96 / s, y + 96 / s)))
        assert (decode(file, 64)[0] == whole).all() and (read_image(file, 96) == middle).all()


@pytest.fixture
def tree(tmp_path):
    "Two classes, with folders in folders and odd entries."
    for c in ("cats", "dogs"):
        for i in range(10):
            file = tmp_path/"tree"/c/("deep/er\n" * (i % 2))/f"-{i}\n.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            grey(np.full((20, 20), 10 * i + (c == "dogs") + 1, np.uint8)).save(file)
    home = tmp_path/"tree"
    (home/"cats"/"lost.png").symlink_to("nowhere")
    (home/"dogs"/"a.jpg").mkdir()
    (home/"dogs"/".hidden").mkdir()
    grey(np.full((20, 20), 250, np.uint8)).save(home/"dogs"/".hidden"/"x.png")
    grey(np.full((20, 20), 251, np.uint8)).save(home/"dogs"/"a.jpg"/"y.png")
    (home/"b.jpg").mkdir()
    (home/"circle").symlink_to(".")
    (home/"cats"/"round").symlink_to("..")
    (home/"cats"/"shut").mkdir()
    (home/"cats"/"shut").chmod(0)
    yield home
    (home/"cats"/"shut").chmod(0o755)


@pytest.mark.filterwarnings("ignore:Images that lie beside")
def test_a_tree_in_memory_and_as_a_stream(tree, tmp_path):
    "The same images in the same order by both ways; what cannot be read is told by both."
    with pytest.warns(UserWarning, match="cannot be read and are skipped"): whole = load(f"folder:{tree}@8")
    assert whole.train.classes == ("cats", "dogs")
    parts = [features_of(f"folder:{tree}@8", part, "pixels", root=tmp_path/"data", device="cpu")
             for part in ("train", "test")]
    for f, images in zip(parts, (whole.train, whole.test)):
        assert ((np.rint(np.asarray(f.x[:, 0], float) * 255) == images.x[:, 0, 0, 0].numpy()).all()
                and (f.labels() == images.y.numpy()).all())
    lost = dict(p for f in parts for p in f.manifest.skipped)
    assert lost["cats/lost.png"] == "a link to a file that is not there" and lost["dogs/a.jpg"] == "a folder"
    assert {str(tree/n): why for n, why in lost.items()} == dict(whole.skipped)
    assert sum(map(len, parts)) == 21 and not any(".hidden" in n for f in parts for n in f.names())


def test_a_folder_that_may_not_be_opened_is_listed(tree, tmp_path):
    (tmp_path/"whole").mkdir()
    tree.rename(tmp_path/"whole"/"train")
    names, skipped = run(f"folder:{tmp_path/'whole'}@8", tmp_path/"data", tmp_path)[1:3]
    (tmp_path/"whole"/"train").rename(tree)
    assert (["cats/shut", "a folder that may not be opened"] in skipped
            and all(n.endswith("\n.png") or n.endswith("y.png") for n in names))


def test_nothing_readable_is_a_sentence(tmp_path):
    "Also one that names the package for HEIC."
    (tmp_path/"photos").mkdir()
    (tmp_path/"photos"/"a.heic").symlink_to("nowhere")
    with pytest.raises(UserError,
                       match="None of the 1 images .* the first is a.heic .a link to a file that is not there"):
        features_of(f"folder:{tmp_path/'photos'}", "train", "pixels", root=tmp_path)


def test_heic_is_read_where_the_package_is(tmp_path, monkeypatch):
    "By its content, whatever it is called; and the fingerprint of the folder changes once it can be read."
    class Toy(ImageFile.ImageFile):
        format = "TOY"
        def _open(self):
            self._mode = "RGB"
            self._size = (1, 1)
            self.tile = [ImageFile._Tile("raw", (0, 0, 1, 1), 24, "RGB")]
    class Package:
        @staticmethod
        def register_heif_opener(): Image.register_open("TOY", Toy, lambda head: head[4:12] == b"ftypheic")
    for name in ("a.heic", "b.jpg"): (tmp_path/name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\x05\x06\x07")
    seen = {}
    try:
        for package in (None, Package):
            monkeypatch.setitem(sys.modules, "pillow_heif", package)
            datasets.reads_heif.cache_clear()
            seen[package] = ([picture(tmp_path/name, 1, lambda im: im) for name in ("a.heic", "b.jpg")],
                             list_files(tmp_path).fingerprint)
    finally:
        datasets.reads_heif.cache_clear()
        Image.OPEN.pop("TOY", None)
        if "TOY" in Image.ID: Image.ID.remove("TOY")
    assert all(x is None and "pillow-heif" in why for x, (why,) in seen[None][0])
    assert [x.tolist() for x, _ in seen[Package][0]] == [[[[5, 6, 7]]]] * 2 and seen[Package][1] != seen[None][1]


@pytest.mark.parametrize("folders, classes, train, test", [
    (["cat", "dog"], 2, 8, 2),
    (["train", "cat", "dog"], 3, 12, 3),
    (["train/cat", "train/dog", "val/cat", "val/dog"], 2, 10, 10)])
def test_memory_and_disk_read_a_folder_alike(tmp_path, folders, classes, train, test):
    "What the folders in a folder mean is the same for images in memory and for files on disk."
    for f, inside in enumerate(folders):
        (tmp_path/inside).mkdir(parents=True)
        for i in range(5): grey(np.full((8, 8), 20 * f + i, np.uint8)).save(tmp_path/inside/f"{i}.png")
    name = f"folder:{tmp_path}@8"
    data = load(name)
    parts = [source(name, part) for part in ("train", "test")]
    assert [len(p) for p in parts] == [len(data.train), len(data.test)] == [train, test]
    assert all(len(p.classes) == classes == len(data.train.classes) for p in parts)
    for files, images in zip(parts, (data.train, data.test)): assert files.y.tolist() == images.y.tolist()
