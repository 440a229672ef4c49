"""The loop under truncated BPTT, its settings, and the held-out loss."""

from musicgen.training.config import TrainingConfig

__all__ = ["TrainingConfig"]
