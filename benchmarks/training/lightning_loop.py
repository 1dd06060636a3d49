"""The notes' data through Lightning's Trainer.

python -m benchmarks.training.lightning_loop CASE FOLDER EPOCHS PRECISION
"""

import logging
import sys
import time
import warnings
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer imports it: imports are not counted
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn

from benchmarks.training.cases import CASES, SEED, Case
from benchmarks.training.nets import make_net
from benchmarks.training.results import Result, say
from benchmarks.training.tutorial_data import loaders

Pair = tuple[Tensor, Tensor]


class Classifier(LightningModule):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.net = make_net(case.name)
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch: Pair, batch_index: int) -> Tensor:
        inputs, labels = batch
        loss: Tensor = self.criterion(self.net(inputs), labels)
        self.log("train_loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: Pair, batch_index: int) -> None:
        self._measure(batch, "val")

    def test_step(self, batch: Pair, batch_index: int) -> None:
        self._measure(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.case.lr, momentum=self.case.momentum)

    def _measure(self, batch: Pair, split: str) -> None:
        inputs, labels = batch
        outputs = self.net(inputs)
        accuracy = (outputs.argmax(1) == labels).float().mean()
        self.log_dict({f"{split}_loss": self.criterion(outputs, labels), f"{split}_accuracy": accuracy})


class Epochs(Callback):
    """When the epochs began, and how many rows they took."""

    began = 0.0
    rows = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: object, batch: Pair, batch_idx: int
    ) -> None:
        self.rows += len(batch[1])


def main(case: Case, folder: Path, epochs: int, precision: str) -> Result:
    began = time.perf_counter()
    torch.manual_seed(SEED)
    train_loader, val_loader, test_loader = loaders(case, folder)
    module, counting = Classifier(case), Epochs()
    saving = ModelCheckpoint(folder / "lightning", save_top_k=-1, every_n_epochs=1, save_weights_only=True)
    is_bf16 = precision == "auto" and torch.cpu._is_avx512_bf16_supported()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        precision="bf16-mixed" if is_bf16 else "32-true",
        callbacks=[counting, saving],
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, train_loader, val_loader)
    epochs_s = time.perf_counter() - counting.began
    (metrics,) = trainer.test(module, test_loader, verbose=False)
    return Result(counting.rows, epochs_s, time.perf_counter() - began, metrics["test_accuracy"])


if __name__ == "__main__":
    warnings.filterwarnings("ignore")  # it advises more data workers than there are cores
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    say(main(CASES[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
