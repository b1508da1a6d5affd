"""How long work tells whoever waits for it. The command line shows it; the Python API may leave it out."""


class Progress:
    """Receives news of long work and ignores it; subclasses show it."""

    def update(self, task: str, done: int, total: int, detail: str = "") -> None:
        """``done`` of ``total`` parts of ``task`` are finished. ``detail`` is a short line about the newest."""

    def note(self, message: str) -> None:
        """Something worth a line of its own."""
