"""A mirror of torchvision's files on loopback, with tiny files of the same layout made here."""

import bz2
import contextlib
import gzip
import io
import pickle
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

from tests.make_data import csv_bytes, encode, idx_bytes, image_bytes, mnist_files, tar_bytes, zip_bytes


class Mirror:
    """`files` by path; `asked` is every path that was asked for. A path in `cut` is sent half."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.asked: list[str] = []
        self.cut: set[str] = set()
        self.hold = threading.Event()
        self.hold.set()
        self.url = ""


@contextlib.contextmanager
def running_mirror(files: Mapping[str, bytes]) -> Iterator[Mirror]:
    mirror = Mirror(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            mirror.asked.append(path)
            mirror.hold.wait(60)
            data = mirror.files.get(path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write((data or b"")[: len(data or b"") // 2] if path in mirror.cut else data or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield mirror
    finally:
        mirror.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()


def fashion_mnist(train: int = 40, test: int = 20) -> dict[str, bytes]:
    return {f"FashionMNIST/{name}": data for name, data in mnist_files(train, test, side=28, gz=True).items()}


def emnist_letters() -> dict[str, bytes]:
    """Labels from 1: torchvision's class 0 of the letters is `N/A`."""
    files = {}
    for split, rows in (("train", 52), ("test", 26)):
        labels = (np.arange(rows) % 26 + 1).astype("uint8")
        pair = {
            "images-idx3": np.full((rows, 28, 28), 7, "uint8"),
            "labels-idx1": labels,
        }
        for kind, array in pair.items():
            name = f"gzip/emnist-letters-{split}-{kind}-ubyte.gz"
            files[name] = gzip.compress(idx_bytes(array))
    return {"EMNIST/gzip.zip": zip_bytes(files)}


def qmnist() -> dict[str, bytes]:
    """Eight numbers a label, of which the first is the digit."""
    files = {}
    for split, rows in (("train", 20), ("test", 10)):
        labels = np.zeros((rows, 8), "int32")
        labels[:, 0] = np.arange(rows) % 10
        labels[:, 1] = 99
        files[f"QMNIST/qmnist-{split}-images-idx3-ubyte.gz"] = gzip.compress(
            idx_bytes(np.zeros((rows, 28, 28), "uint8"))
        )
        files[f"QMNIST/qmnist-{split}-labels-idx2-int.gz"] = gzip.compress(idx_bytes(labels))
    return files


def cifar10(per_batch: int = 10) -> dict[str, bytes]:
    """Rows of 3072 bytes, the red plane first (https://www.cs.toronto.edu/~kriz/cifar.html)."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    rng = np.random.default_rng(0)
    files = {"batches.meta": pickle.dumps({"label_names": names})}
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        rows = rng.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": rows, "labels": [row % 10 for row in range(per_batch)]})
    packed = tar_bytes({f"cifar-10-batches-py/{name}": data for name, data in files.items()}, "gz")
    return {"CIFAR10/cifar-10-python.tar.gz": packed}


def usps() -> dict[str, bytes]:
    """Lines of libsvm: a label from 1, then 256 numbers from -1 to 1."""
    line = " ".join(f"{position + 1}:{position / 128 - 1:.4f}" for position in range(256))
    lines = "".join(f"{label} {line}\n" for label in range(1, 11)).encode()
    return {f"USPS/{name}": bz2.compress(lines) for name in ("usps.bz2", "usps.t.bz2")}


def eurosat() -> dict[str, bytes]:
    """Class folders in a zip; one picture is a PNG with alpha, which torchvision reads as colour."""
    files = {
        f"2750/{name}/{n}.jpg": image_bytes(n, mode="RGB", format="JPEG")
        for n in range(3)
        for name in ("Forest", "River")
    }
    files["2750/River/9.jpg"] = image_bytes(9, mode="RGBA")
    return {"EuroSAT/EuroSAT.zip": zip_bytes(files)}


def gtsrb() -> dict[str, bytes]:
    """Portable pixmaps in folders of numbers, and a test whose labels stand in a CSV."""
    training = {f"GTSRB/Training/{label:05}/0000{n}.ppm": _ppm(n) for n in range(2) for label in (0, 1)}
    testing = {f"GTSRB/Final_Test/Images/0000{n}.ppm": _ppm(n) for n in range(2)}
    truth = csv_bytes([("Filename", "ClassId"), ("00000.ppm", 0), ("00001.ppm", 1)], delimiter=";")
    return {
        "GTSRB/GTSRB-Training_fixed.zip": zip_bytes(training),
        "GTSRB/GTSRB_Final_Test_Images.zip": zip_bytes(testing),
        "GTSRB/GTSRB_Final_Test_GT.zip": zip_bytes({"GT-final_test.csv": truth}),
    }


def _ppm(seed: int) -> bytes:
    return encode(Image.open(io.BytesIO(image_bytes(seed, mode="RGB"))), "PPM")
