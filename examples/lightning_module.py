"""Lightning: the plan is made with the network, `configure_optimizers` returns the optimiser, and checkpoints resume exactly.

pip install lightning
python examples/lightning_module.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import modular_manifolds as mm
from modular_manifolds.integrations.lightning import GeometryCallback
from modular_manifolds.training.data import load_data

Batch = tuple[Tensor, Tensor]


class Digits(LightningModule):
    """A perceptron that reads digits."""

    def __init__(self, *, lr: float = 0.5, epochs: int = 4) -> None:
        super().__init__()
        self.lr, self.epochs = lr, epochs
        self.net = nn.Sequential(
            nn.Linear(64, 64),
            nn.LayerNorm(64),
            nn.GELU(),
            nn.Linear(64, 64),
            nn.GELU(),
            nn.Linear(64, 10),
        )
        # Here and not in configure_optimizers, which sees the weights of the checkpoint when a run goes on.
        self.plan = mm.adapt(self.net)

    def training_step(self, batch: Batch) -> Tensor:
        images, labels = batch
        loss = functional.cross_entropy(self.net(images), labels)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Batch) -> None:
        images, labels = batch
        self.log("accuracy", (self.net(images).argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self) -> Any:
        opt = mm.SteepestDescent(self.plan, self.lr, momentum=0.9, nesterov=True)
        return {"optimizer": opt, "lr_scheduler": CosineAnnealingLR(opt, self.epochs)}


def run(
    folder: Path, *, epochs: int = 4, stop_after: int | None = None, resume: Path | None = None
) -> tuple[Digits, float]:
    """Train, or go on from a checkpoint; the module and its accuracy on held-out digits.

    Args:
        folder: the place of logs and checkpoints.
        epochs: the length of the whole run, which the schedule knows.
        stop_after: the number of epochs after which to stop early.
        resume: a checkpoint to go on from.
    """
    seed_everything(0, verbose=False)
    data, module = load_data("digits"), Digits(epochs=epochs)
    train = TensorDataset(data.train.images, data.train.labels)
    # Lightning tells this sampler the epoch, so a resumed run sees the same batches as an uninterrupted one.
    order = DistributedSampler(train, num_replicas=1, rank=0)
    trainer = Trainer(
        max_epochs=epochs if stop_after is None else stop_after,
        accelerator="cpu",
        logger=CSVLogger(folder),
        callbacks=[
            ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1),
            GeometryCallback(module.plan, every=20),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        module,
        DataLoader(train, 64, sampler=order),
        DataLoader(TensorDataset(data.test.images, data.test.labels), 512),
        ckpt_path=resume,
    )
    return module, float(trainer.callback_metrics["accuracy"])


if __name__ == "__main__":
    torch.set_float32_matmul_precision("highest")
    print(f"accuracy {run(Path('runs/lightning'))[1]:.3f}")
