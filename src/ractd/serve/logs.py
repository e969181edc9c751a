"""The server's log: one JSON object a line on standard error."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """Time, level, event, the fields given as `extra={"fields": {...}}`, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def json_logger() -> logging.Logger:
    """Return the server's logger, which writes to standard error."""
    logger = logging.getLogger("ractd.serve")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    # The library reports every port scan with a traceback; what matters of a connection is logged by its session.
    logging.getLogger("ractd.serve.websockets").setLevel(logging.CRITICAL)
    return logger
