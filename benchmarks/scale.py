"""Compute the seconds of an optimiser step on many ranks.

python benchmarks/scale.py --model gpt2-xl --ranks 8,64,512
python benchmarks/scale.py --page docs/scale.md
"""

from modular_manifolds_scale.command import app

if __name__ == "__main__":
    app()
