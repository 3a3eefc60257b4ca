from tests.models.conftest import hasty_compiler

__all__ = ["hasty_compiler"]
