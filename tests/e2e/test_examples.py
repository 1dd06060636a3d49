"""The worked examples as a user runs them, over real sockets: the Python script, the curl script, and beside
them the script by hand that they stand for."""

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms import v2

from deploy.embed import RunningStack
from examples import docstrings
from examples.cifar10 import by_hand as cifar10
from examples.fashion_mnist import by_hand as fashion_mnist
from examples.fine_tuning import by_hand as fine_tuning
from examples.linear_regression import by_hand as linear_regression
from examples.linear_regression import make_data as patients
from examples.lstm_text import by_hand as lstm_text
from examples.lstm_text import make_data as text
from examples.mixed_table import by_hand as mixed_table
from examples.mixed_table import make_data as sun
from examples.transformer_text import by_hand as transformer_text
from examples.two_inputs import by_hand as two_inputs
from examples.two_inputs import make_data as things
from modelyard import Client
from modelyard.specs import ModelVersion
from tests.make_data import idx_bytes, zip_bytes
from tests.needs import needs_file

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/run.py"))
DATA = ROOT.parent / "shared" / "data"
MNIST = DATA / "mnist-12k-csv-png.zip"
CIFAR = DATA / "cifar10-12k-folders-jpeg.zip"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

#: How far the service may be from the script by hand, which draws other first weights and another order, and
#: also trains on what the service sets aside. Each is a little more than what five seeds of the script lie
#: apart (least to greatest in parentheses).
MARGINS = {
    "fashion_mnist": 0.06,  # (0.639 to 0.688)
    "cifar10": 0.08,  # (0.368 to 0.432)
    "fine_tuning": 0.15,  # (0.79 to 0.90)
    "lstm_text": 0.06,  # (0.718 to 0.773)
    "transformer_text": 0.05,  # (0.717 to 0.753)
    "mixed_table": 0.02,  # (0.963 to 0.969)
    "linear_regression": 1e-3,  # (0.339 each time: it converges)
    "two_inputs": 0.03,  # (0.894 to 0.911)
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as the stack's jobs have: the scripts by hand train beside them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sentences_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sentences") / "sentences.zip"
    docstrings.write_zip(path, ["text", "library"], text.rows())
    return path


@needs_file(MNIST)
def test_fashion_mnist_trains_on_idx_files_as_the_quickstart_does(
    stack: RunningStack, client: Client, tmp_path: Path
) -> None:
    """The files are Fashion-MNIST's by name and layout; what is in them here is MNIST."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    files = mnist_as_idx(train=5000, test=1000)
    for name, data in files.items():
        (raw / name).write_bytes(data)
    archive = tmp_path / "fashion-mnist.zip"
    archive.write_bytes(
        zip_bytes({f"{name}.gz": gzip.compress(data, mtime=0) for name, data in files.items()})
    )

    ran = run_both(stack, client, "fashion_mnist", archive)
    _, plain = fashion_mnist.train(str(tmp_path))

    close(ran, "test_accuracy", plain, MARGINS["fashion_mnist"])
    net = fashion_mnist.make_net()
    net.load_state_dict(weights_of(client, ran.version, tmp_path))
    image = np.frombuffer(files["t10k-images-idx3-ubyte"], dtype=np.uint8, offset=16)[: 28 * 28]
    says(ran, net, torch.from_numpy(image.copy()).reshape(1, 1, 28, 28) / 255)


@needs_file(CIFAR)
def test_cifar10_trains_on_folders_of_jpegs_as_a_plain_loop_does(
    stack: RunningStack, client: Client, tmp_path: Path
) -> None:
    archive, picture = some_of_cifar(tmp_path, LABELS, train=100, test=50)

    ran = run_both(stack, client, "cifar10", archive, picture=picture)
    _, plain = cifar10.train(tmp_path)

    close(ran, "test_accuracy", plain, MARGINS["cifar10"])
    net = cifar10.make_net()
    net.load_state_dict(weights_of(client, ran.version, tmp_path))

    says(ran, net, v2.Compose(cifar10.PLAIN)(Image.open(picture))[None])


@needs_file(CIFAR)
@pytest.mark.timeout(300)  # a ResNet-18 three times, which beside busy neighbours takes a minute
def test_fine_tuning_leaves_the_frozen_base_as_it_came_and_moves_what_thaws(
    stack: RunningStack, client: Client, tmp_path: Path
) -> None:
    archive, picture = some_of_cifar(tmp_path, ("frog", "ship"), train=60, test=50)
    weights = tmp_path / "resnet18.pt"
    torch.save(made_weights(tmp_path / "train"), weights)

    ran = run_both(stack, client, "fine_tuning", archive, weights=weights, picture=picture)
    _, plain = fine_tuning.train(tmp_path, weights)

    close(ran, "test_accuracy", plain, MARGINS["fine_tuning"])
    net = resnet18(num_classes=2).eval()
    trained, before = weights_of(client, ran.version, tmp_path), torch.load(weights, weights_only=True)
    net.load_state_dict(trained)
    moved = {name.split(".")[0] for name in trained if not torch.equal(trained[name], before[name])}
    assert moved == {"layer4", "fc"}

    says(ran, net, v2.Compose(fine_tuning.PLAIN)(Image.open(picture))[None])


@pytest.mark.parametrize(
    ("name", "by_hand"), [("lstm_text", lstm_text), ("transformer_text", transformer_text)]
)
def test_text_is_read_as_well_as_by_a_plain_loop(
    stack: RunningStack, client: Client, sentences_zip: Path, name: str, by_hand: Any
) -> None:
    ran = run_both(stack, client, name, sentences_zip)
    _, plain = by_hand.train(sentences_zip)

    close(ran, "test_accuracy", plain, MARGINS[name])
    rows = rows_of(sentences_zip, "test")
    reply = client.models.predict(ran.model, [{"text": row["text"]} for row in rows])
    right = [one.label == row["library"] for one, row in zip(reply.predictions, rows, strict=True)]
    assert sum(right) / len(rows) == pytest.approx(ran.version.metrics["test_accuracy"], abs=1e-6)


def test_a_mixed_table_is_learned_as_well_as_by_scikit_learn(
    stack: RunningStack, client: Client, tmp_path: Path
) -> None:
    archive = tmp_path / "sun.zip"
    docstrings.write_zip(archive, sun.HEADER, sun.rows())

    ran = run_both(stack, client, "mixed_table", archive)
    _, plain = mixed_table.train(archive)

    close(ran, "test_accuracy", plain, MARGINS["mixed_table"])
    rows = rows_of(archive, "test")
    instances = [
        {
            "date": row["date"],
            "hour": float(row["hour"]),
            "latitude": float(row["latitude"]) if row["latitude"] else None,
            "hemisphere": row["hemisphere"],
        }
        for row in rows
    ]
    assert any(instance["latitude"] is None for instance in instances)
    measured_as_by_scikit_learn(client, ran, instances, [row["sun"] == "up" for row in rows], "up")


def test_linear_regression_ends_at_the_closed_form(
    stack: RunningStack, client: Client, tmp_path: Path
) -> None:
    archive = tmp_path / "diabetes.zip"
    patients.write_zip(archive)

    ran = run_both(stack, client, "linear_regression", archive)
    _, plain = linear_regression.train(archive)

    close(ran, "test_r2", plain, MARGINS["linear_regression"])
    x, y = (tensor.double().numpy() for tensor in linear_regression.read(archive, "train"))
    solution, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y)
    patient = [2.0, 32.1, 101.0, 4.8598, 1.0]
    assert ran.reply["predictions"][0]["value"] == pytest.approx(float(patient @ solution[:, 0]), rel=1e-4)


def test_both_scripts_train_for_the_epochs_they_are_told(
    stack: RunningStack, client: Client, tmp_path: Path
) -> None:
    archive = tmp_path / "diabetes.zip"
    patients.write_zip(archive)
    environment = {**os.environ, "MODELYARD_URL": stack.url, "MODELYARD_KEY": stack.key, "EPOCHS": "2"}
    script = "examples.linear_regression.run"
    run([sys.executable, "-m", script, "--data", str(archive), "--epochs", "1"], environment)
    run(["sh", "examples/linear_regression/run.sh", str(archive)], environment)

    newest, second = list(client.models.versions("linear-regression"))[:2]
    assert second.spec["trainer"]["epochs"] == 1
    assert newest.spec["trainer"]["epochs"] == 2


def test_a_graph_takes_numbers_and_text_as_two_inputs(
    stack: RunningStack, client: Client, tmp_path: Path
) -> None:
    archive = tmp_path / "things.zip"
    docstrings.write_zip(archive, things.HEADER, things.rows())

    ran = run_both(stack, client, "two_inputs", archive)
    _, plain = two_inputs.train(archive)

    close(ran, "test_accuracy", plain, MARGINS["two_inputs"])
    rows = rows_of(archive, "test")
    counted = ("parameters", "defaults", "lines")
    instances = [{"summary": row["summary"], **{name: int(row[name]) for name in counted}} for row in rows]
    is_function = [row["kind"] == "function" for row in rows]
    measured_as_by_scikit_learn(client, ran, instances, is_function, "function")


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_a_readme_shows_lines_of_the_script_by_hand(folder: Path) -> None:
    by_hand = (folder / "by_hand.py").read_text()
    shown = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.M | re.S)

    assert shown
    for block in shown:
        assert block in by_hand


@dataclass(frozen=True)
class Ran:
    """What both scripts registered: `version` is that of the curl script, `reply` what it was answered."""

    model: str
    version: ModelVersion
    reply: dict[str, Any]


def run_both(stack: RunningStack, client: Client, name: str, data: Path, **more: Path) -> Ran:
    """The Python script, then the curl script, on the same file: two versions with the same numbers."""
    environment = {**os.environ, "MODELYARD_URL": stack.url, "MODELYARD_KEY": stack.key}
    options = [word for key, value in more.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", f"examples.{name}.run", "--data", str(data), *options]
    said = run(command, environment)
    curled = run(["sh", f"examples/{name}/run.sh", str(data), *map(str, more.values())], environment)
    reply = json.loads(curled.splitlines()[-1])
    number = int(re.findall(r"^\S+@(\d+) test_\S+ \S+$", said, re.M)[-1])
    first, second = (client.models.version(reply["model"], version) for version in (number, number + 1))
    assert reply["version"] == second.version
    assert second.state == "ready"
    assert second.metrics == pytest.approx(first.metrics)
    return Ran(f"{reply['model']}@{second.version}", second, reply)


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def close(ran: Ran, metric: str, plain: float, margin: float) -> None:
    value = ran.version.metrics[metric]
    print(f"{ran.model} {metric}: service {value:.4f}, by hand {plain:.4f}")
    assert value == pytest.approx(plain, abs=margin)


def says(ran: Ran, net: nn.Module, batch: torch.Tensor) -> None:
    """The answer over HTTP is that of torch's own net with the weights of the version."""
    with torch.no_grad():
        score, index = net(batch).softmax(1)[0].max(0)
    (prediction,) = ran.reply["predictions"]
    assert prediction["index"] == index
    assert prediction["score"] == pytest.approx(score.item(), abs=1e-4)


def weights_of(client: Client, version: ModelVersion, folder: Path) -> dict[str, torch.Tensor]:
    path = client.checkpoints.download(version.lineage.checkpoint, folder / "weights.pt")
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return state


def measured_as_by_scikit_learn(
    client: Client, ran: Ran, instances: list[dict[str, Any]], truth: list[bool], positive: str
) -> None:
    reply = client.models.predict(ran.model, instances, top_k=2)
    scores = [{each.label: each.score for each in one.top or []}[positive] for one in reply.predictions]
    taken = [one.label == positive for one in reply.predictions]
    metrics = ran.version.metrics
    assert metrics["test_f1"] == pytest.approx(f1_score(truth, taken, average="macro"), abs=1e-5)
    assert metrics["test_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)


def rows_of(archive: Path, split: str) -> list[dict[str, str]]:
    with zipfile.ZipFile(archive) as members:
        return list(csv.DictReader(io.TextIOWrapper(members.open(f"{split}.csv"), "utf-8")))


def mnist_as_idx(train: int, test: int) -> dict[str, bytes]:
    """The four files, of the first PNGs of the shared MNIST."""
    files = {}
    with zipfile.ZipFile(MNIST) as members:
        for split, name, count in (("train", "train", train), ("test", "t10k", test)):
            _, *rows = csv.reader(io.TextIOWrapper(members.open(f"{split}.csv"), "utf-8"))
            images = [np.asarray(Image.open(io.BytesIO(members.read(path)))) for path, _ in rows[:count]]
            labels = np.array([int(label) for _, label in rows[:count]], dtype=np.uint8)
            files[f"{name}-images-idx3-ubyte"] = idx_bytes(np.stack(images))
            files[f"{name}-labels-idx1-ubyte"] = idx_bytes(labels)
    return files


def some_of_cifar(folder: Path, labels: Sequence[str], train: int, test: int) -> tuple[Path, Path]:
    """The first pictures of each class, in folders and as a zip; and one of the test."""
    with zipfile.ZipFile(CIFAR) as members:
        names = sorted(name for name in members.namelist() if name.endswith(".jpg"))
        files = {}
        for split, count in (("train", train), ("test", test)):
            for label in labels:
                kept = [name for name in names if name.startswith(f"{split}/{label}/")][:count]
                files |= {name: members.read(name) for name in kept}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    archive = folder / "pictures.zip"
    archive.write_bytes(zip_bytes(files))
    return archive, folder / next(name for name in files if name.startswith("test/"))


def made_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of a ResNet-18 that has seen some pictures: random features, and the statistics of its batch norms."""

    torch.manual_seed(0)
    net = resnet18(num_classes=1000)
    pictures = DataLoader(ImageFolder(folder, v2.Compose(fine_tuning.PLAIN)), batch_size=16, shuffle=True)
    with torch.no_grad():
        for x, _ in pictures:
            net(x)
    return net.state_dict()
