"""Every error that a user or a file can cause.

    MusicgenError                 the root: catching it catches everything below
    ├── ScoreError                a score breaks a rule of the score model
    ├── FormatError               a file can't be read or written: names file and line or bar
    │   └── UnsupportedFormat     no reader or writer for this suffix
    ├── TokenError                steps that are not in the tokenizer's grammar, or a score that it can't hold
    ├── CorpusError               a folder yields nothing to train on
    ├── ConfigError               a YAML file or a --set that the schema refuses
    ├── TrainingError             a run that can't go on: its loss is no number any more
    ├── CheckpointError           a checkpoint folder is missing, damaged or of another kind
    ├── FinishError               a fragment that can't be continued
    └── RenderError               what was written can't be played or drawn: no SoundFont, no such kind of file

Each message is one line: where, what was found, and what to do. The command line prints it and exits with 2.
"""


class MusicgenError(Exception):
    """The root of everything that a user or a file can cause."""


class ScoreError(MusicgenError):
    """A score breaks a rule of the score model."""


class FormatError(MusicgenError):
    """A file can't be read or written."""


class UnsupportedFormat(FormatError):
    """No reader or writer for this suffix."""


class TokenError(MusicgenError):
    """Steps outside the tokenizer's grammar, or a score that it can't hold."""


class CorpusError(MusicgenError):
    """A folder yields nothing to train on."""


class ConfigError(MusicgenError):
    """A YAML file or a --set that the schema refuses."""


class TrainingError(MusicgenError):
    """A run that can't go on."""


class CheckpointError(MusicgenError):
    """A checkpoint folder is missing, damaged or of another kind."""


class FinishError(MusicgenError):
    """A fragment that can't be continued."""


class RenderError(MusicgenError):
    """What was written can't be played or drawn."""
