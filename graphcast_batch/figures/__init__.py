"""Draw stored forecasts and their scores."""

import logging


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a warning of matplotlib's is worth a line: that it keeps its cache elsewhere is not.

    It does so where the home folder cannot be written, as in containers and services, and removes it at the end.
    """
    return not any(sign in record.getMessage() for sign in ("cache directory", "mkdir -p failed"))


logging.getLogger("matplotlib").addFilter(_is_news)
