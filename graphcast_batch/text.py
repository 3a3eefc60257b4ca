"""Show values in messages: those that come from outside in short and without control characters, sizes in units."""

import math
import unicodedata


def brief(value: object) -> str:
    """Return a value as text for a message, at most 200 characters of it."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}..."


def is_plain(text: str) -> bool:
    """Return whether text is valid UTF-8 without line breaks or other control characters."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def byte_size(count: int) -> str:
    """Return a number of bytes in the unit that suits it, such as 1.03 TB."""
    if count < 1000:
        return f"{count} B"
    power = min(4, int(math.log(count, 1000)))
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, whose plural ends in s: ``1 worker``, ``2 workers``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
