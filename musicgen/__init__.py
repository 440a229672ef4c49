"""Learn music from a folder of scores, and finish the symphony."""

__version__ = "0.1.0"
