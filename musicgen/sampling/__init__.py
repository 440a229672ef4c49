"""Drawing steps: the filters, the sampler, and the finishing of fragments."""

from musicgen.sampling.filters import SamplingConfig
from musicgen.sampling.finish import Take, Understanding, finish, understand
from musicgen.sampling.sampler import Sampled, sample

__all__ = ["Sampled", "SamplingConfig", "Take", "Understanding", "finish", "sample", "understand"]
