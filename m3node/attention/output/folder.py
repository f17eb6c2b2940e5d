"""The folder of results: where each file of a question lies, and what keeps two runs apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from m3node.durable import remove_parts
from m3node.errors import ConfigError

TABLE = "evaluation_results.csv"
REPORT = "report.html"
GRIDS, OVERLAYS, VISUALIZATIONS, ROBUSTNESS = "grids", "overlays", "visualizations", "robustness"


@dataclass(frozen=True, slots=True)
class QuestionFiles:
    """Names of one question's files, below the folder of results."""

    key: str

    @property
    def grid(self) -> str:
        """float32, adds up to 1."""
        return f"{GRIDS}/{self.key}_grid.npy"

    @property
    def heads(self) -> str:
        """Grids of layers and heads, where they are kept."""
        return f"{GRIDS}/{self.key}_heads.npz"

    @property
    def record(self) -> str:
        """All that is known of the question; written last, so that what has one is whole."""
        return f"{GRIDS}/{self.key}_meta.json"

    @property
    def overlay(self) -> str:
        """Picture with its heat map."""
        return f"{OVERLAYS}/{self.key}_overlay.png"

    @property
    def visualization(self) -> str:
        """Everything on one sheet."""
        return f"{VISUALIZATIONS}/{self.key}_full.png"

    @property
    def all(self) -> tuple[str, ...]:
        """The record comes last."""
        return self.grid, self.heads, self.overlay, self.visualization, self.record


def open_folder(out: Path, images: Path, *, resume: bool) -> None:
    """Check that results may go to ``out``, and make its folders.

    Parameters
    ----------
    out : Path
        The folder of results; need not be there.
    images : Path
        The folder of images.
    resume : bool
        Go on with what lies in it.

    Raises
    ------
    ConfigError
        It holds another run's results, or lies among the images, whose pictures would be taken for images then.
    """
    if out.resolve().is_relative_to(images.resolve()):
        raise ConfigError(f"--out: {out} lies in the folder of images, and its pictures would be; name one outside it")
    if not resume and (found := _earlier(out)):
        raise ConfigError(
            f"--out: {out} holds an earlier run ({found}); name another folder, or go on with it by --resume"
        )
    make_folders(out)
    for name in ("", GRIDS, OVERLAYS, VISUALIZATIONS):
        remove_parts(out / name)


def make_folders(out: Path) -> None:
    """Make the folders below ``out``."""
    for name in (GRIDS, OVERLAYS, VISUALIZATIONS):
        try:
            (out / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out: cannot make the folder {out / name}: {error.strerror}") from error


def _earlier(out: Path) -> str:
    """Name something of an earlier run, if there is one; an empty folder of ours is none."""
    for name in (TABLE, REPORT, GRIDS, OVERLAYS, VISUALIZATIONS):
        path = out / name
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            return name
    return ""
