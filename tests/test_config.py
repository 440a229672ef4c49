"""YAML in, one line of error out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from musicgen.checkpoint import build_model
from musicgen.config import RunConfig, dump_config, load_config
from musicgen.decoders import DECODERS
from musicgen.errors import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_yaml_is_read_and_its_model_built(path):
    config = load_config(path)
    assert build_model(config, config.tokenizer.build()).parameter_count > 0


@pytest.mark.parametrize("music", ["irish", "chorales", "orchestra"])
def test_the_architectures_for_one_kind_of_music_have_about_the_same_number_of_parameters(music):
    counts = {}
    for decoder in DECODERS:
        config = load_config(CONFIGS[0].parent / f"{music}-{decoder}.yaml")
        assert config.model.decoder == decoder
        counts[decoder] = build_model(config, config.tokenizer.build()).parameter_count
    assert max(counts.values()) < 1.2 * min(counts.values()), counts


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
@pytest.mark.parametrize("decoder", DECODERS)
def test_swapping_the_decoder_is_one_line(path, decoder):
    config = load_config(path, [f"model.decoder={decoder}"])
    if config.model.dim % (2 * config.model.heads) == 0:
        assert build_model(config, config.tokenizer.build()).decoder.__class__ is DECODERS[decoder]


def test_a_dumped_configuration_reads_back_the_same(tmp_path):
    config = load_config(CONFIGS[0], ["training.seed=7"])
    path = tmp_path / "again.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config
    assert set(yaml.safe_load(path.read_text())["training"]) == set(type(config.training).model_fields)


def test_set_changes_one_value():
    assert load_config(None, ["model.dim=96"]).model.dim == 96
    assert load_config(None).model.dim == RunConfig().model.dim


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["model.dims=96"], "known: decoder, dim"),
        (["model.dim=wide"], "model.dim"),
        (["model.decoder=gpt"], "rnn"),
        (["dim=96"], "section.name=value"),
        (["modle.dim=3"], "known: tokenizer, model, training"),
        (["model.decoder=transformer", "model.dim=100", "model.heads=8"], "100 does not divide into 8 heads"),
        (["training.transpose=[6, -5]"], "lowest <= highest"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changes, words):
    with pytest.raises(ConfigError) as caught:
        load_config(None, changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_yaml_names_the_file_in_one_line(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("model: [1, 2\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_a_yaml_file_can_not_run_code(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("model: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError):
        load_config(path)
