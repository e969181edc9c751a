"""The one exception that users see, the same here and in the runtime."""

from ractd_runtime.errors import RactdError

__all__ = ["RactdError"]
