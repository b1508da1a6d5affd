"""Text and numbers for HTML. Everything that comes from outside goes through :func:`text`."""

import html
import math
import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Invisible characters that reorder or hide the text around them: a file name must not read as another one.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def text(value: object) -> str:
    """A value as HTML text that is safe in content and in quoted attributes.

    Line feeds and tabs stay; other control, formatting and unpaired surrogate characters become U+FFFD.
    """
    visible = "".join(
        character if character in "\n\t" or unicodedata.category(character) not in _HIDDEN else REPLACEMENT
        for character in str(value).replace("\r\n", "\n")
    )
    return html.escape(visible, quote=True)


def number(value: object) -> float | None:
    """``value`` as a finite number, or None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def figure(value: float) -> str:
    """A number of any size, in four significant digits."""
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def undefined(reason: str) -> str:
    """What stands where there is no number: a dash that says why."""
    return f'<abbr class="undefined" title="{text(reason)}">\N{EN DASH}</abbr>'


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
