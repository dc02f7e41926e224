"""The lines that `intervene bench compare` and a resident peer exchange (benches/README.md). Python's own library alone."""

import json
import os
import platform
import sys
import time


class Wire:
    """Lines of JSON on stdout, which nobody else writes to: what libraries print goes to stderr."""

    def __init__(self):
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, **message):
        self.out.write(json.dumps(message) + "\n")
        self.out.flush()

    def serve(self, job):
        """Runs `job` for every line `run`, until a line says something else; what the last run came to."""
        out = None
        for line in sys.stdin:
            if line.strip() != "run":
                break
            spent, out = seconds(job)
            self.say(seconds=spent)
        return out


def seconds(job):
    start = time.perf_counter()
    out = job()
    return time.perf_counter() - start, out


def versions(*packages):
    """Of Python and of those that are loaded."""
    loaded = {name: sys.modules[name].__version__ for name in packages if name in sys.modules}
    return {"python": platform.python_version(), **loaded}


def peak_bytes():
    """The most memory that this process had, where the system says so (it is Linux that does)."""
    try:
        for line in open("/proc/self/status"):
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
