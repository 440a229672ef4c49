"""What a command is given: the score to go on with, and the checkpoint that comes with musicgen for such music."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from musicgen import checkpoint as checkpoints
from musicgen.checkpoint import Checkpoint
from musicgen.errors import CheckpointError, FinishError, FormatError
from musicgen.formats import read_tunes
from musicgen.sampling.finish import make_prompt
from musicgen.score import Score, unfold
from musicgen.tokens import TOKENIZERS


def never_over(source: str | Path, targets: Sequence[Path]) -> None:
    """Raises FormatError if one of the files to be written is the one that was read."""
    for target in targets:
        if target.resolve() == Path(source).resolve():
            raise FormatError(f"{target}: would be written over, and it is the original; choose another --out")


def one_score(path: Path, loaded: Checkpoint) -> Score:
    """The one piece in a file, as the checkpoint's tokenizer wants it. Raises FinishError where there are several."""
    tune = one_tune(path)
    return tune if loaded.tokenizer.as_written else unfold(tune)


def one_tune(path: Path) -> Score:
    """The one piece in a file, as written. Raises FinishError where there are several, or no notes."""
    tunes = read_tunes(path)
    if len(tunes) > 1:
        raise FinishError(f"{path}: holds {len(tunes)} tunes; put the one to go on with into a file of its own")
    if isinstance(tunes[0], FormatError):
        raise tunes[0]
    if not tunes[0].note_count:
        raise FinishError(f"{path}: no notes, so there is nothing to continue; begin it, or use `sample`")
    return tunes[0]


def shipped(name: str) -> Path:
    """The folder of a checkpoint that comes with musicgen: in ./checkpoints, or beside the package.

    Raises CheckpointError where it lies in neither.
    """
    for home in (Path("checkpoints"), Path(__file__).resolve().parents[1] / "checkpoints"):
        if (home / name / checkpoints.BEST).exists():
            return home / name
    raise CheckpointError(
        f"no checkpoint was named, and checkpoints/{name} is not there; name one, or `make checkpoints`"
    )


def checkpoint_for(score: Score) -> Path:
    """The checkpoint that ships for such music: `folk` for one melody that ABC can write, else `orchestra`."""
    if sum(len(part.notes) > 0 for part in score.parts) == 1:
        try:
            make_prompt(score, TOKENIZERS["abc"]())
            return shipped("folk")
        except FinishError:
            pass
    return shipped("orchestra")


def bundled(home: str | Path) -> tuple[Path, Path, Path]:
    """(the scherzo fragment, checkpoints orchestra and folk) below `home`, the project's own folder."""
    home = Path(home)
    fragment = home / "data" / "schubert-d759" / "scherzo.musicxml"
    models = home / "checkpoints" / "orchestra", home / "checkpoints" / "folk"
    for path in (fragment, *(model / checkpoints.BEST for model in models)):
        if not path.exists():
            raise CheckpointError(f"{path}: not there; run the demo in the project's folder, or name it by --home")
    return fragment, *models
