"""Hugging Face's Trainer: a residual network reads digits; optimiser and schedule are passed in, checkpoints resume exactly.

pip install transformers accelerate
python examples/hf_trainer.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
    set_seed,
)

import modular_manifolds as mm
from modular_manifolds.integrations.transformers import GeometryCallback
from modular_manifolds.training.data import load_data
from modular_manifolds.training.split import Split


class Images(Dataset[dict[str, Tensor]]):
    """Digits as the model takes them: one channel of 8×8 pixels."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, label = self.split.images[index], self.split.labels[index]
        return {"pixel_values": image.reshape(1, 8, 8), "labels": label}


def accuracy(found: Any) -> dict[str, float]:
    """The fraction of correct predictions."""
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


def run(
    folder: Path, *, steps: int = 120, stop_after: int | None = None, lr: float = 0.5, **more: Any
) -> tuple[Trainer, float]:
    """Train, or go on from the last checkpoint in `folder`; the trainer and the accuracy on held-out digits.

    Args:
        folder: the place of checkpoints.
        steps: the length of the whole run, which the schedule knows.
        stop_after: the number of steps after which to stop early.
        lr: how far a step may move the outputs.
        more: further settings of `TrainingArguments`.
    """
    set_seed(0)
    data = load_data("digits")
    config = ResNetConfig(
        num_channels=1,
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        layer_type="basic",
    )
    config.num_labels = 10
    model = ResNetForImageClassification(config)
    plan = mm.adapt(model)  # ours
    opt = mm.SteepestDescent(plan, lr, momentum=0.9, nesterov=True)  # ours
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 64,
        "max_steps": steps if stop_after is None else stop_after,
        "save_steps": 20,
        "logging_steps": 20,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        # The length of a step does not depend on the size of the gradient, so there is nothing to clip.
        "max_grad_norm": 0.0,
        **more,
    }
    trainer = Trainer(
        model,
        TrainingArguments(str(folder), **settings),
        train_dataset=Images(data.train),
        eval_dataset=Images(data.test),
        optimizers=(opt, get_cosine_schedule_with_warmup(opt, 10, steps)),
        compute_metrics=accuracy,
    )
    trainer.add_callback(GeometryCallback(plan, trainer, every=20))
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    return trainer, trainer.evaluate()["eval_accuracy"]


if __name__ == "__main__":
    torch.set_float32_matmul_precision("highest")
    print(f"accuracy {run(Path('runs/hf-trainer'))[1]:.3f}")
