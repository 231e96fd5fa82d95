#!/usr/bin/python3
"""Sees that a filter's time for a hostile line grows with the line's length, and not faster.

usage: linear.py FILTER[OPTIONS] SHORT LONG

SHORT and LONG have the same entries, each of one line or more and with a line of a NUL behind it; those of LONG are
four times as long. Time is the processor's, so that it does not matter what else the machine does.
"""
import sys
import time

sys.path.insert(0, "/usr/lib/python3/dist-packages")
from fail2ban.client.fail2banregex import Fail2banRegex, get_opt_parser

# A line that takes less is no harm.
HARM = 0.02
# Four times as long is linear, sixteen times is quadratic.
TIMES = 8


def entries(path):
    with open(path, encoding="utf-8", errors="replace", newline="\n") as log:
        return log.read().split("\0\n")[:-1]


def main(filter_, short, long):
    options, _ = get_opt_parser().parse_args(["-o", "id", "LOG", "REGEX"])
    regex = Fail2banRegex(options)
    if not regex.readRegex(filter_, "fail"):
        return f"{filter_}: not read"
    lines = regex._filter

    def seconds(entry):
        # What was before is no longer in the buffer.
        for _ in range(lines.getMaxLines()):
            lines.processLine("x")
        start = time.process_time()
        for line in entry.split("\n"):
            lines.processLine(line)
        return time.process_time() - start

    for small, large in zip(entries(short), entries(long), strict=True):
        if seconds(large) > HARM:
            times = min(seconds(large) for _ in range(3)) / max(min(seconds(small) for _ in range(3)), HARM / 16)
            if times > TIMES:
                return f"{filter_}: {times:.0f} times the time for four times the text: {small[:400]!r}"
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
