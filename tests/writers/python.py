"""Writes numbered lines with a handler of Python's own, as many as it is told to on standard input.

python.py FILE rotating | midnight | hourly | secondly | lumberjack
"""

import logging
import logging.handlers
import os
import sys
import time

# Handlers that rotate by time ask for it here: the real one at first, for they also look at their file's.
NOW = [time.time()]
# How much later each order of lines comes.
STEP = {"midnight": 43200, "hourly": 1800}


class Lumberjack(logging.FileHandler):
    """As Go's lumberjack names and renames: app-2026-11-26T10-00-00.000.log."""

    def __init__(self, path, size, backups):
        super().__init__(path)
        self.size, self.backups, self.kept = size, backups, []

    def emit(self, record):
        if self.stream.tell() + len(record.getMessage()) + 1 > self.size:
            self.rotate()
        super().emit(record)

    def rotate(self):
        self.stream.close()
        stem, ending = os.path.splitext(self.baseFilename)
        NOW[0] += 1
        millis = "%03d" % (len(self.kept) % 1000)
        name = stem + time.strftime("-%Y-%m-%dT%H-%M-%S.", time.gmtime(NOW[0])) + millis + ending
        os.rename(self.baseFilename, name)
        self.kept.append(name)
        self.stream = self._open()
        if len(self.kept) > self.backups:
            os.unlink(self.kept.pop(0))


def handler(path, kind):
    if kind == "rotating":
        return logging.handlers.RotatingFileHandler(path, maxBytes=1000, backupCount=30)
    if kind == "lumberjack":
        return Lumberjack(path, 1000, 30)
    time.time = lambda: NOW[0]
    when = {"midnight": "midnight", "hourly": "H", "secondly": "S"}[kind]
    return logging.handlers.TimedRotatingFileHandler(path, when=when, backupCount=60, utc=True)


def main():
    path, kind = sys.argv[1:]
    writer = handler(path, kind)
    number = 0
    for order in sys.stdin:
        NOW[0] += STEP.get(kind, 1)
        for _ in range(int(order)):
            message = "line %07d of a program that logs" % number
            writer.emit(logging.LogRecord("", logging.INFO, "", 0, message, (), None))
            number += 1
        print("done", flush=True)


main()
