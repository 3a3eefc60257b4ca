"""Show values that come from outside in messages: in short, and without control characters."""

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
