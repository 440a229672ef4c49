"""RunConfig: everything that one training run can be told, composed of the schemas of the parts.

A YAML file states what it changes; `--set model.dim=128` changes one value more. Nothing unknown is passed over: a
misspelt name is an error that says which names there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from musicgen.decoders.model import ModelConfig
from musicgen.errors import ConfigError
from musicgen.tokens import TOKENIZERS, Tokenizer
from musicgen.training.config import TrainingConfig

LARGEST_MODEL = 2**28
"""Layers times the square of the width: some billions of parameters. A configuration may be a stranger's."""


class TokenizerConfig(BaseModel):
    """Which tokenizer, and how it is set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["abc", "bars", "grid", "performance"] = Field(
        "bars",
        description="abc: one melody as ABC text; bars: any number of parts; grid: a fixed number of voices, column by "
        "column; performance: one instrument in clock time",
    )
    characters: bool = Field(False, description="abc: one step a character, as in the lecture's lab, not a symbol")
    voices: int = Field(4, ge=1, le=8, description="grid: how many voices, each a part of its own")
    steps_per_quarter: Literal[1, 2, 3, 4, 6, 8, 12] = Field(4, description="grid: columns a quarter note")
    holds: bool = Field(True, description="grid: tell a note that goes on from one struck again")

    def build(self) -> Tokenizer:
        options = {name: getattr(self, name) for name in OPTIONS.get(self.name, ())}
        return TOKENIZERS[self.name](**options)


OPTIONS = {"abc": ("characters",), "grid": ("voices", "steps_per_quarter", "holds")}
"""Which of the options above each tokenizer has."""


class RunConfig(BaseModel):
    """One training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()


def load_config(path: str | Path | None = None, changes: Sequence[str] = ()) -> RunConfig:
    """The YAML at `path` (or the defaults) with `changes` ("section.name=value") on top. Raises ConfigError."""
    values: dict = {}
    if path is not None:
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected sections (tokenizer, model, training), found {type(values).__name__}")
    for change in changes:
        name, equals, text = change.partition("=")
        section, dot, option = name.strip().partition(".")
        if not equals or not dot or not option:
            raise ConfigError(f"--set {change}: expected section.name=value, as in model.dim=256")
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {change}: {section} is not a section")
        try:
            inner[option] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {change}: the value is not YAML") from error
    return check_config(values, str(path) if path else "--set")


def check_config(values: dict, where: str) -> RunConfig:
    """The schema's verdict on plain values. Raises ConfigError naming every fault, its value and what is known."""
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "; ".join(_explain(fault) for fault in error.errors())) from error
    if config.model.decoder == "transformer" and config.model.dim % (2 * config.model.heads):
        raise ConfigError(
            f"{where}: model.dim {config.model.dim} does not divide into {config.model.heads} heads of an even width"
        )
    if config.model.layers * config.model.dim**2 > LARGEST_MODEL:
        raise ConfigError(f"{where}: {config.model.layers} layers of {config.model.dim}: more than can be meant")
    low, high = config.training.transpose
    if not -24 <= low <= high <= 24:
        raise ConfigError(f"{where}: training.transpose [{low}, {high}]: expected lowest <= highest within -24..24")
    return config


def _explain(fault) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {
            "tokenizer": TokenizerConfig,
            "model": ModelConfig,
            "training": TrainingConfig,
        }
        schema = sections.get(str(fault["loc"][0]), RunConfig) if len(fault["loc"]) > 1 else RunConfig
        return f"{place} is not known here; known: {', '.join(schema.model_fields)}"
    return f"{place}: {fault['msg']}, found {fault['input']!r}"


def dump_config(config: RunConfig) -> str:
    """The whole configuration as YAML, defaults filled in."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
