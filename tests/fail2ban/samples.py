#!/usr/bin/python3
"""Runs fail2ban's own test of filters and log samples on ours.

usage: samples.py FAIL2BAN_DIR SAMPLES_DIR FILTER...

FAIL2BAN_DIR has our filter.d; SAMPLES_DIR has a file of log lines for each filter, each line below a
"# failJSON: {...}" that says what it must yield. fail2ban's test also refuses filters that can be fooled
by greedy expressions, and regular expressions that no sample shows.
"""
import os
import shutil
import sys
import tempfile
import types
import unittest

# The system's fail2ban; FAIL2BAN_PYTHONPATH names another version.
sys.path.insert(0, os.environ.get("FAIL2BAN_PYTHONPATH", "/usr/lib/python3/dist-packages"))


def overlay(ours, samples, into):
    """fail2ban's configuration with our filters, and the samples where its test looks for them."""
    config = os.path.join(into, "config")
    shutil.copytree("/etc/fail2ban", config)
    shutil.copytree(os.path.join(ours, "filter.d"), os.path.join(config, "filter.d"), dirs_exist_ok=True)
    shutil.copytree(samples, os.path.join(into, "files", "logs"))
    return config, os.path.join(into, "files")


def main(ours, samples, filters):
    with tempfile.TemporaryDirectory() as into:
        config, files = overlay(ours, samples, into)
        os.environ["FAIL2BAN_CONFIG_DIR"] = config
        from fail2ban.tests import samplestestcase, utils

        utils.initTests(types.SimpleNamespace(
            no_network=True, memory_db=True, fast=True, no_gamin=True, negate_re=False, log_level=30, verbosity=0,
            log_traceback=False, full_traceback=False, log_lazy=True, verbosity_fmt=None))
        samplestestcase.TEST_FILES_DIR = files

        class Samples(samplestestcase.FilterSamplesRegex):
            pass

        names = []
        for name in filters:
            names.append("testSample_" + name.replace("-", "_"))
            setattr(Samples, names[-1], samplestestcase.testSampleRegexsFactory(name, config))
        result = unittest.TextTestRunner(verbosity=2).run(unittest.TestSuite(Samples(name) for name in names))
        return not (result.wasSuccessful() and result.testsRun == len(filters))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
