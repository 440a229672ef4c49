"""Decoders: what runs over time between the embedding and the head. Interchangeable, and deaf to music."""

from musicgen.decoders.decoder import Decoder, State, detach, forget, pick
from musicgen.decoders.recurrent import Gru, Lstm, Rnn
from musicgen.decoders.transformer import Transformer

DECODERS: dict[str, type[Decoder]] = {"rnn": Rnn, "gru": Gru, "lstm": Lstm, "transformer": Transformer}

__all__ = [
    "DECODERS",
    "Decoder",
    "Gru",
    "Lstm",
    "Rnn",
    "State",
    "Transformer",
    "detach",
    "forget",
    "pick",
]
