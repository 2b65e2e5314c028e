"""Plain torch models, written for the arena alone: no optimiser's defaults were chosen on them."""

from arena.models.gpt import GPT as GPT
from arena.models.mlp import mlp as mlp
from arena.models.resnet import ResNet as ResNet
from arena.models.vit import ViT as ViT
