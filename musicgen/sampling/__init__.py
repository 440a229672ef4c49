"""Drawing steps: the filters, the sampler, and the finishing of fragments."""

from musicgen.sampling.filters import SamplingConfig
from musicgen.sampling.finish import Take, finish
from musicgen.sampling.sampler import Sampled, sample
from musicgen.sampling.understanding import Understanding, understand

__all__ = ["Sampled", "SamplingConfig", "Take", "Understanding", "finish", "sample", "understand"]
