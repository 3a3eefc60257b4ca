"""Show values that come from outside in messages: in short, and without control characters."""

import unicodedata


def brief(value: object) -> str:
    """A value as a message shows it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}..."


def is_plain(text: str) -> bool:
    """Whether text is UTF-8 and has no line breaks or other control characters, such as those that steer a terminal."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)
