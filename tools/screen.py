"""Runs a program in a pseudo-terminal and tells what a person sees: stdin is a JSON object (below), stdout another.

    arguments    the program and its arguments
    environment  variables over ours; null takes one away
    columns, rows
    stdin, stdout, stderr   "terminal", "other" (a second terminal) or the path of a file
    steps        what the person does, one after the other:
      {"wait": TEXT}       until TEXT is on the screen
      {"prompt": TEXT}     until the cursor's line is TEXT, and something came since anything was typed
      {"send": TEXT}       types it
      {"signal": NUMBER}   sends it to the program
      {"resize": [COLUMNS, ROWS]}
      {"sleep": SECONDS}
      {"look": NAME}       keeps the screen as it is under that name
    seconds      after which it is killed

The result: status (128 + the signal where one ended it), lines (with all that was scrolled away), other (the second
terminal's), looks, statuses (each state in which the last line was), cursor [column, row], hidden, restored (whether the
terminal has its modes again), bytes, waited (whether every wait came to its end), seconds.
"""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

import pyte


class Terminal:
    def __init__(self, columns, rows):
        self.master, self.slave = pty.openpty()
        self.screen = pyte.HistoryScreen(columns, rows, history=100_000, ratio=0.5)
        self.stream = pyte.ByteStream(self.screen)
        self.bytes = b""
        self.statuses = []
        self.resize(columns, rows)

    def resize(self, columns, rows):
        self.screen.resize(rows, columns)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def lines(self):
        width = range(self.screen.columns)
        scrolled = ["".join(line[x].data for x in width) for line in self.screen.history.top]
        lines = [line.rstrip() for line in scrolled + list(self.screen.display)]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def cursor_line(self):
        return self.screen.display[self.screen.cursor.y].rstrip()

    def read(self, timeout):
        """Shows what has come; whether anything has."""
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        piece = os.read(self.master, 65536)
        self.bytes += piece
        # State by state: a status line may be replaced in the same piece.
        for part in piece.replace(b"\r", b"\0\r").replace(b"\n", b"\n\0").split(b"\0"):
            self.stream.feed(part)
            line = self.cursor_line()
            if part and (not self.statuses or self.statuses[-1] != line) and len(self.statuses) < 5000:
                self.statuses.append(line)
        return True


def main():
    order = json.load(sys.stdin)
    terminal = Terminal(order["columns"], order["rows"])
    other = Terminal(order["columns"], order["rows"])
    modes = termios.tcgetattr(terminal.slave)
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        run(order, terminal, other)

    deadline = begin + order["seconds"]
    status = None
    waited = True
    looks = {}
    sent = -1  # the bytes that had come when something was typed

    def pump(timeout):
        nonlocal status
        shown = terminal.read(timeout)
        shown = other.read(0) or shown
        if not shown and status is None:
            ended, code = os.waitpid(child, os.WNOHANG)
            if ended:
                status = code
        return shown

    def until(condition):
        while not condition():
            if status is not None and not pump(0.05) or time.monotonic() > deadline:
                return False
            pump(0.02)
        return True

    for step in order["steps"]:
        [(kind, value)] = step.items()
        if kind == "wait":
            waited = until(lambda: value in "\n".join(terminal.lines())) and waited
        elif kind == "prompt":
            waited = until(lambda: terminal.cursor_line() == value and len(terminal.bytes) > sent) and waited
        elif kind == "send":
            sent = len(terminal.bytes)
            os.write(terminal.master, value.encode())
        elif kind == "signal":
            os.kill(child, value)
        elif kind == "resize":
            terminal.resize(*value)
        elif kind == "sleep":
            end = time.monotonic() + value
            until(lambda: time.monotonic() > end)
        elif kind == "look":
            looks[value] = terminal.lines()
    until(lambda: status is not None)
    if status is None:
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    seconds = time.monotonic() - begin
    while pump(0.05):
        pass
    json.dump(
        {
            "status": 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status),
            "lines": terminal.lines(),
            "other": other.lines(),
            "looks": looks,
            "statuses": terminal.statuses,
            "cursor": [terminal.screen.cursor.x, terminal.screen.cursor.y + len(terminal.screen.history.top)],
            "hidden": terminal.screen.cursor.hidden,
            "restored": termios.tcgetattr(terminal.slave) == modes,
            "bytes": terminal.bytes.decode(errors="replace"),
            "waited": waited,
            "seconds": seconds,
        },
        sys.stdout,
    )


def run(order, terminal, other):
    """Becomes the program."""
    os.setsid()
    fcntl.ioctl(terminal.slave, termios.TIOCSCTTY, 0)
    for number, name in enumerate(["stdin", "stdout", "stderr"]):
        place = order[name]
        if place == "terminal":
            file = terminal.slave
        elif place == "other":
            file = other.slave
        else:
            file = os.open(place, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
    for name, value in order["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # What Python, or the program that runs the tests, has set is not what a shell would hand on.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGTSTP]:
        signal.signal(number, signal.SIG_DFL)
    os.closerange(3, 256)
    os.execvp(order["arguments"][0], order["arguments"])


main()
