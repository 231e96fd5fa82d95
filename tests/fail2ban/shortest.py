#!/usr/bin/python3
"""Prints how many characters each failregex of a filter needs at least to match, and the expression: a line for each.

usage: shortest.py FAIL2BAN_DIR FILTER

What an expression only looks ahead to is not counted, so a line may need more. No address is shorter than seven.
"""
import sys

# The system's fail2ban.
sys.path.insert(0, "/usr/lib/python3/dist-packages")

try:
    from re import _parser
except ImportError:
    import sre_parse as _parser


def main(ours, name):
    from fail2ban.client.filterreader import FilterReader

    reader = FilterReader(name, "", {}, basedir=ours)
    reader.read()
    reader.getOptions({})
    for _, _, command, value, *_ in reader.convert():
        if command == "addfailregex":
            for regex in [value] if isinstance(value, str) else value:
                regex = regex.replace("(?=[^/\\n]{7,45}/)<ADDR>", "[^/\\n]{7,45}")
                if "<ADDR>" in regex:
                    sys.exit(f"an address of any length: {regex}")
                print(_parser.parse(regex).getwidth()[0], regex)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
