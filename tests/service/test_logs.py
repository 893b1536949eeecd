"""A line an event, for people or for machines."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.logs import JsonFormatter, Line, log_fatal

LINE = Line(method="POST", route="/v1/embeddings", status=200, ms=5.12, id="x", texts=2, key="alice")

EVENTS = """
import logging, threading, warnings
from service.logs import log_fatal, start_logging

start_logging("json")
logging.getLogger("elsewhere").info("two\\nlines of %s", "it")
try:
    raise KeyError("cause")
except KeyError:
    logging.getLogger("berth").exception("it failed")
warnings.warn("old")

def fail():
    raise OSError("in a thread")

thread = threading.Thread(target=fail)
thread.start()
thread.join()
log_fatal("json", "no such model")
raise ValueError("the end")
"""


def written_by(code: str) -> list[str]:
    """Run code in a process of its own; gives the lines on its stderr."""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    return ran.stderr.splitlines()


def test_request_is_one_line_for_people() -> None:
    assert str(LINE) == "POST /v1/embeddings 200 ms=5.12 id=x texts=2 key=alice"


def test_request_is_one_object_for_machines() -> None:
    record = logging.makeLogRecord({"name": "berth.requests", "levelname": "INFO", "msg": LINE, "created": 0.25})
    fields = json.loads(JsonFormatter().format(record))
    assert fields.pop("process") == record.process
    assert fields == {
        "time": f"1970-01-01T00:00:00.{int(record.msecs):03d}Z",
        "level": "info",
        "logger": "berth.requests",
        "message": "request",
        **LINE,
    }


def test_everything_of_the_process_is_an_object_a_line() -> None:
    told, failed, warned, in_thread, fatal, ended = map(json.loads, written_by(EVENTS))
    assert (told["message"], told["logger"], told["level"]) == ("two\nlines of it", "elsewhere", "info")
    assert (failed["message"], failed["level"]) == ("it failed", "error")
    assert "KeyError: 'cause'" in failed["exception"]
    assert "UserWarning: old" in warned["message"]
    assert "OSError: in a thread" in in_thread["exception"]
    assert (fatal["message"], fatal["level"]) == ("no such model", "critical")
    assert "ValueError: the end" in ended["exception"]


def test_line_for_people_says_when_how_bad_and_who() -> None:
    code = "import logging, service.logs as logs; logs.start_logging('text')"
    [line] = written_by(f"{code}; logging.getLogger('berth').info('ready')")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO berth: ready", line)


def test_reason_of_a_failed_start_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    log_fatal("text", "no such model")
    assert capsys.readouterr().err == "berth: no such model\n"
