"""Pages are written over those of the same command only."""

from pathlib import Path

from ..errors import InputError


def check_own_page(folder: Path, beside: str, command: str) -> None:
    """
    Make sure that no page of another origin would be written over.

    Args:
        folder: where index.html is to go.
        beside: a file that the command writes before the page.
        command: its name.

    Raises:
        InputError: there is a page, and no such file beside it.
    """
    if (folder / "index.html").exists() and not (folder / beside).exists():
        raise InputError(
            f"--output is {str(folder)!r}, where index.html is not of 'ohem-d2 {command}', which "
            f"has {beside} beside it: expected a folder of its own"
        )
