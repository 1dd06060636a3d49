"""A job's event files, read back with TensorBoard's own reader and asked for over its own server."""

import io
import json
import re
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from core.data.manifest import Manifest
from tests.attempts import arrays, attempt_of, c, seq
from tests.fakes import FakeLink
from workers.attempt import Attempt
from workers.board import board, embedding, entries, pictures
from workers.board.archive import pack, unpack
from workers.messages import EpochEnded, Noted, Resume, Saved, Started, Stepped, Verified

MEAN, STD = 0.25, 0.5
SPEC: dict[str, Any] = {
    "model": seq(c("Flatten"), c("Linear", out_features=16), c("ReLU"), c("Linear", out_features=3)),
    "transforms": {"train": [c("Normalize", mean=[MEAN], std=[STD])]},
    "trainer": {"epochs": 4, "batch_size": 8, "log_every_steps": 2},
}
STEPS = 10  # an epoch


def data() -> tuple[Manifest, pa.Table]:
    return arrays([1, 6, 6], classes=3, dtype="uint8", train=80, validation=30)()


def ordered(folder: Path, spec: dict[str, Any] = SPEC) -> Attempt:
    manifest, rows = data()
    folder.mkdir(exist_ok=True)
    attempt = attempt_of(spec, manifest, rows, folder)
    attempt.link = FakeLink()
    attempt.order = msgspec.structs.replace(attempt.order, board=str(folder / "board"))
    return attempt


def run(attempt: Attempt) -> FakeLink:
    attempt.run()
    assert isinstance(attempt.link, FakeLink)
    return attempt.link


def read(folder: Path) -> EventAccumulator:
    everything = {"scalars": 0, "images": 0, "tensors": 0, "histograms": 0}
    reader = EventAccumulator(str(folder), size_guidance=everything)
    reader.Reload()
    return reader


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FakeLink]:
    folder = tmp_path_factory.mktemp("trained")
    return folder / "board", run(ordered(folder))


def test_every_number_that_was_reported_is_there_at_its_step(trained: tuple[Path, FakeLink]) -> None:
    folder, link = trained
    reported: dict[tuple[str, int], float] = {}
    for report in [*link.all(Stepped), *link.all(EpochEnded)]:
        reported |= {(name, report.step): value for name, value in report.metrics.items()}
    reader = read(folder)
    written = {(tag, one.step): one.value for tag in reader.Tags()["scalars"] for one in reader.Scalars(tag)}
    assert {"train_loss", "lr", "grad_norm", "samples_per_second", "memory_bytes", "val_loss"} <= {
        name for name, _ in written
    }
    assert written == pytest.approx({key: float(np.float32(value)) for key, value in reported.items()})


def test_the_first_batch_is_shown_as_the_net_saw_it(trained: tuple[Path, FakeLink]) -> None:
    """The rows are in order, so the first eight are the batch; normalising is undone."""
    (image,) = read(trained[0]).Images("train_batch")
    assert image.step == 1
    grid = np.array(Image.open(io.BytesIO(image.encoded_image_string)).convert("L"))
    _, rows = data()
    pixels = np.array(rows.column("x").combine_chunks().flatten()[: 8 * 36]).reshape(8, 6, 6)
    assert np.array_equal(grid, np.concatenate(list(pixels), axis=1))


def test_the_spec_and_the_graph_are_there(trained: tuple[Path, FakeLink]) -> None:
    reader = read(trained[0])
    (text,) = reader.Tensors("spec/text_summary")
    assert '"out_features": 16' in text.tensor_proto.string_val[0].decode()
    names = [node.name for node in reader.Graph().node]
    assert any("Linear[1]" in name for name in names), names
    assert any("Linear[3]" in name for name in names)


def test_weights_have_a_histogram_an_epoch_with_their_true_range(trained: tuple[Path, FakeLink]) -> None:
    folder, link = trained
    weights = torch.load(link.last(Saved).weights.path, weights_only=True)
    reader = read(folder)
    assert {f"weights/{name}" for name in weights} == set(reader.Tags()["histograms"])
    histograms = reader.Histograms("weights/1.weight")
    assert [one.step for one in histograms] == [STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS]
    last = histograms[-1].histogram_value
    assert last.num == weights["1.weight"].numel()
    assert (last.min, last.max) == pytest.approx(
        (float(weights["1.weight"].min()), float(weights["1.weight"].max()))
    )


def test_precision_and_recall_are_those_of_the_trained_net(trained: tuple[Path, FakeLink]) -> None:
    folder, link = trained
    weights = torch.load(link.last(Saved).weights.path, weights_only=True)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(36, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
    )
    net.load_state_dict(weights)
    _, rows = data()
    pixels = torch.tensor(np.array(rows.column("x").combine_chunks().flatten())).reshape(-1, 1, 6, 6)[80:]
    scores = net((pixels.float() / 255 - MEAN) / STD).softmax(dim=1)[:, 1].detach().numpy()
    is_one = np.array(rows.column("y"))[80:] == 1
    (event,) = read(folder).Tensors("pr/1")
    true_positives, false_positives, _, false_negatives, _, _ = (
        np.frombuffer(event.tensor_proto.tensor_content, np.float32).reshape(6, -1)
        if event.tensor_proto.tensor_content
        else np.array(event.tensor_proto.float_val).reshape(6, -1)
    )
    middle = entries.PR_THRESHOLDS // 2  # of 0..1: the threshold one half
    taken = np.floor(scores * (entries.PR_THRESHOLDS - 1)) >= middle
    assert true_positives[middle] == (taken & is_one).sum()
    assert false_positives[middle] == (taken & ~is_one).sum()
    assert false_negatives[middle] == (~taken & is_one).sum()


def test_validation_rows_stand_in_the_projector_with_labels_and_pictures(
    trained: tuple[Path, FakeLink],
) -> None:
    folder, _ = trained
    assert "validation/tensors.tsv" in (folder / "projector_config.pbtxt").read_text()
    points = np.loadtxt(folder / "validation" / "tensors.tsv", delimiter="\t")
    assert points.shape == (30, 16)
    assert (points >= 0).all()  # what the last layer is given comes out of a ReLU
    _, rows = data()
    labels = (folder / "validation" / "metadata.tsv").read_text().split()
    assert labels == [str(label) for label in rows.column("y").to_pylist()[80:]]
    sheet = np.array(Image.open(folder / "validation" / "sprite.png"))
    assert sheet.shape == (36, 36, 3)  # six by six images of six by six
    pixels = np.array(rows.column("x").combine_chunks().flatten()).reshape(-1, 6, 6)[80:]
    assert np.array_equal(sheet[6:12, 12:18, 0], pixels[8])  # the second row's third


def test_a_resumed_attempt_goes_on_and_what_was_rewound_is_not_shown_twice(tmp_path: Path) -> None:
    whole = ordered(tmp_path / "whole")
    broken = ordered(tmp_path / "broken")
    unbroken = run(whole)

    class Dies(FakeLink):
        """In the third epoch; its last checkpoint is the second's."""

        def send(self, report: Any) -> None:
            super().send(report)
            if isinstance(report, Stepped) and report.step == 2 * STEPS + 6:
                raise KeyboardInterrupt

    broken.link = Dies()
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    saved = next(one for one in broken.link.all(Saved) if one.step == 2 * STEPS)
    order = msgspec.structs.replace(
        ordered(tmp_path / "again").order,
        resume=Resume(saved.weights.path, saved.state.path),
        board=broken.order.board,
        resolved=broken.link.last(Started).resolved,
    )
    time.sleep(1.1)  # files are read in the order of their names: of their seconds
    run(Attempt(order, FakeLink()))
    assert len(list(Path(broken.order.board).glob("events*"))) == 2
    reader, reference = read(Path(broken.order.board)), read(tmp_path / "whole" / "board")
    for tag in ("train_loss", "grad_norm", "val_loss", "val_accuracy"):
        found = [(one.step, one.value) for one in reader.Scalars(tag)]
        assert found == [(one.step, one.value) for one in reference.Scalars(tag)]
    assert unbroken.last(Verified).test_metrics == {}


def test_an_attempt_without_a_board_writes_none(tmp_path: Path) -> None:
    attempt = ordered(tmp_path)
    attempt.order = msgspec.structs.replace(attempt.order, board="")
    run(attempt).last(Verified)
    assert not (tmp_path / "board").exists()


def test_a_board_that_cannot_be_written_costs_the_job_nothing_but_a_warning(tmp_path: Path) -> None:
    attempt = ordered(tmp_path)
    (tmp_path / "board").write_text("no folder")
    link = run(attempt)
    assert link.last(Verified).difference <= link.last(Verified).tolerance
    (warning,) = [note for note in link.all(Noted) if note.type == "warning"]
    assert "TensorBoard" in warning.data["message"]


def test_a_board_does_not_change_what_is_trained(tmp_path: Path) -> None:
    spec = SPEC | {
        "model": seq(c("Flatten"), c("Linear", out_features=16), c("Dropout"), c("Linear", out_features=3))
    }
    with_board, without = ordered(tmp_path / "with", spec), ordered(tmp_path / "without", spec)
    without.order = msgspec.structs.replace(without.order, board="")
    a, b = run(with_board).last(Saved), run(without).last(Saved)
    assert a.weights.sha256 == b.weights.sha256


def test_a_net_that_cannot_be_traced_has_no_graph_and_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no tracing here")

    monkeypatch.setattr(torch.jit, "trace", refuse)
    link = run(ordered(tmp_path))
    assert not [note for note in link.all(Noted) if note.type == "warning"]
    tags = read(tmp_path / "board").Tags()
    assert not tags["graph"]
    assert "pr/1" in tags["tensors"]


@pytest.mark.parametrize("kind", ["regression", "multilabel", "binary"])
def test_other_tasks_have_boards_too(tmp_path: Path, kind: str) -> None:
    classes = {"binary": 2}.get(kind)
    width = 3 if kind == "multilabel" else 1
    manifest, rows = arrays([5], classes=classes, width=width)()
    outputs = {"regression": 1, "multilabel": 3, "binary": 2}[kind]
    spec: dict[str, Any] = {"model": seq(c("Linear", out_features=4), c("Linear", out_features=outputs))}
    if kind == "multilabel":
        spec["loss"] = c("BCEWithLogitsLoss")
    attempt = attempt_of(spec, manifest, rows, tmp_path)
    attempt.link = FakeLink()
    attempt.order = msgspec.structs.replace(attempt.order, board=str(tmp_path / "board"))
    link = run(attempt)
    assert not [note for note in link.all(Noted) if note.type == "warning"]
    curves = [tag for tag in read(tmp_path / "board").Tags()["tensors"] if tag.startswith("pr/")]
    assert len(curves) == {"regression": 0, "multilabel": 3, "binary": 2}[kind]
    labels = (tmp_path / "board" / "validation" / "metadata.tsv").read_text().splitlines()
    assert len(labels) == 4
    assert not (tmp_path / "board" / "validation" / "sprite.png").exists()


def test_samples_are_bounded_and_hold_the_extent_of_a_large_tensor() -> None:
    net = torch.nn.Sequential(*(torch.nn.Linear(200, 200) for _ in range(40)))
    samples = board.sampled(net)
    assert len(samples) == board.MAX_HISTOGRAMS
    assert all(0 < len(values) <= board.MAX_SAMPLED for values in samples.values())
    assert np.array_equal(samples["0.bias"], net[0].bias.detach().numpy())


def test_features_are_bounded_by_those_that_differ_most() -> None:
    features = torch.zeros(10, 1000)
    features[:, 500:] = torch.arange(10.0)[:, None] * torch.arange(500.0)
    kept = embedding.most_telling(features)
    assert torch.equal(kept, features[:, 1000 - embedding.MAX_FEATURES :])


def test_large_pictures_are_made_small_and_stay_between_0_and_1() -> None:
    normalized = (torch.rand(2, 3, 100, 50) - 0.5) / 0.2
    seen = pictures.seen(normalized, [c("Normalize", mean=[0.5] * 3, std=[0.2] * 3)], side=20)
    assert seen.shape == (2, 3, 20, 10)
    assert torch.allclose(seen, (normalized * 0.2 + 0.5).unfold(2, 5, 5).unfold(3, 5, 5).mean((4, 5)))


def test_an_archive_gives_back_what_is_missing_and_leaves_what_is_further(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "old").write_bytes(b"123")
    (tmp_path / "a" / "deep" / "new").write_bytes(b"12345")
    pack(tmp_path / "a", tmp_path / "a.zip")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "old").write_bytes(b"123 and more")
    unpack(tmp_path / "a.zip", tmp_path / "b")
    assert (tmp_path / "b" / "old").read_bytes() == b"123 and more"
    assert (tmp_path / "b" / "deep" / "new").read_bytes() == b"12345"


class Server:
    """`tensorboard --logdir` on loopback."""

    def __init__(self, folder: Path) -> None:
        program = [str(Path(sys.executable).parent / "tensorboard"), "--logdir", str(folder)]
        self.process = subprocess.Popen(
            [*program, "--host", "127.0.0.1", "--port", "0"], stderr=subprocess.PIPE, text=True
        )
        self.url = self._address(time.monotonic() + 60)

    def _address(self, deadline: float) -> str:
        assert self.process.stderr is not None
        while time.monotonic() < deadline and self.process.poll() is None:
            if select.select([self.process.stderr], [], [], 1)[0]:
                found = re.search(r"http://127\.0\.0\.1:\d+", self.process.stderr.readline())
                if found:
                    return found.group()
        raise AssertionError("tensorboard did not start within a minute")

    def ask(self, path: str, body: Any = None, **params: str) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/data/{path}?{urlencode(params)}", data, headers)
        with urllib.request.urlopen(request, timeout=20) as reply:
            answer: bytes = reply.read()
            return answer

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        if self.process.stderr is not None:
            self.process.stderr.close()


@pytest.fixture(scope="module")
def server(trained: tuple[Path, FakeLink]) -> Iterator[Server]:
    opened = Server(trained[0].parent)
    try:
        deadline = time.monotonic() + 30
        while b"pr/1" not in opened.ask("plugin/pr_curves/tags") and time.monotonic() < deadline:
            time.sleep(0.1)  # it reads the files in the background; the curves come last
        yield opened
    finally:
        opened.close()


def test_tensorboard_serves_the_scalars(server: Server, trained: tuple[Path, FakeLink]) -> None:
    points = json.loads(server.ask("plugin/scalars/scalars", run="board", tag="val_loss"))
    ended = trained[1].all(EpochEnded)
    assert [step for _, step, _ in points] == [report.step for report in ended]
    assert [value for *_, value in points] == pytest.approx([report.metrics["val_loss"] for report in ended])


def test_tensorboard_serves_pictures_graph_words_and_distributions(server: Server) -> None:
    (image,) = json.loads(server.ask("plugin/images/images", run="board", tag="train_batch", sample="0"))
    picture = server.ask("plugin/images/individualImage", **dict([image["query"].split("=")]))
    assert Image.open(io.BytesIO(picture)).format == "PNG"
    assert b"Linear[3]" in server.ask("plugin/graphs/graph", run="board")
    assert b"out_features" in server.ask("plugin/text/text", run="board", tag="spec/text_summary")
    assert (
        len(json.loads(server.ask("plugin/histograms/histograms", run="board", tag="weights/1.weight"))) == 4
    )
    curves = json.loads(server.ask("plugin/pr_curves/pr_curves", run="board", tag="pr/1"))
    assert len(curves["board"][0]["precision"]) > 1


def test_tensorboard_serves_the_embedding_with_its_sprites(server: Server) -> None:
    config = json.loads(server.ask("plugin/projector/info", run="board"))["embeddings"][0]
    assert config["tensorShape"] == [30, 16]
    points = server.ask("plugin/projector/tensor", run="board", name=config["tensorName"])
    assert np.frombuffer(points, np.float32).shape == (30 * 16,)
    labels = server.ask("plugin/projector/metadata", run="board", name=config["tensorName"])
    assert len(labels.decode().split()) == 30
    sprite = server.ask("plugin/projector/sprite_image", run="board", name=config["tensorName"])
    assert Image.open(io.BytesIO(sprite)).size == (36, 36)


def test_tensorboard_compares_jobs_by_their_hyperparameters(server: Server) -> None:
    found = json.loads(server.ask("plugin/hparams/experiment", {"experimentName": ""}))
    names = {info["name"] for info in found["hparamInfos"]}
    assert {"optimizer.lr", "trainer.batch_size", "trainer.epochs"} <= names
