"""Makes the data of tests/upgrade.rs: has an old agent run, stops it, and keeps what it left.

    git worktree add /tmp/old 9935078 && cd /tmp/old && cargo build -p capturer
    python3 tests/upgrade/make.py /tmp/old/target/debug/capturer

`stopped/` is what SIGTERM leaves, `killed/` what SIGKILL leaves. A checkpoint names files by numbers that are others on
each machine: `"is":"in/a.log"` stands for them here, and {home} for the directory. So its header does not fit any more.
That directory's path has HOME_BYTES bytes, for a checkpoint has lengths of outputs, whose records have the path in them.
{piece} is a piece of a long line, as Docker writes it. {time} is when a line was read, which must be after its file was
made: so it is another for each test. It is as long as it was.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# As in upgrade.rs.
HOME_BYTES = 100
PIECE = "p" * 16384
PATIENCE_S = 180
SLOW = ("behind", "rotated", "later")


def wait_until(what, look):
    end = time.monotonic() + PATIENCE_S
    while not look():
        if time.monotonic() > end:
            sys.exit("waited in vain for " + what)
        time.sleep(0.002)


class Scene:
    def __init__(self, home, agent):
        self.home, self.agent, self.written = home, agent, {}
        for name in ("in", "out", "data"):
            os.mkdir(os.path.join(home, name))

    def path(self, name):
        return os.path.join(self.home, name)

    def read(self, name):
        try:
            with open(self.path(name), "rb") as file:
                return file.read().decode()
        except FileNotFoundError:
            return ""

    def append(self, name, text):
        with open(self.path("in/%s.log" % name), "a") as file:
            file.write(text)

    def lines(self, name, count):
        """Appends numbered lines."""
        first = self.written.get(name, 0)
        self.written[name] = first + count
        self.append(name, "".join("%s line %d\n" % (name, n) for n in range(first, first + count)))

    def json(self, stream, text):
        n = self.written["json"] = self.written.get("json", 0) + 1
        record = '{"log":"%s","stream":"%s","time":"2026-11-28T12:00:00.%09dZ"}\n'
        self.append("json", record % (text, stream, n))

    def rename(self, name):
        os.rename(self.path("in/%s.log" % name), self.path("in/%s.log.1" % name))

    def has(self, name, text):
        return text in self.read("out/%s.ndjson" % name)

    def count(self, name):
        return self.read("out/%s.ndjson" % name).count("\n")

    def saved_len(self, name):
        """Length of an output in the checkpoint."""
        mark = re.search(r'"path":"%s\.ndjson"[^}]*"len_bytes":(\d+)' % name, self.read("data/checkpoint.json"))
        return int(mark[1]) if mark else -1

    def is_saved(self, names):
        return all(self.saved_len(name) == len(self.read("out/%s.ndjson" % name)) for name in names)

    def run(self, sign):
        config = self.path("config.yaml")
        with open(os.path.join(HERE, "config.yaml")) as template, open(config, "w") as file:
            file.write(template.read().replace("{home}", self.home))
        self.lines("done", 8)
        self.lines("turned", 6)
        self.lines("copied", 6)
        self.lines("open", 4)
        self.append("trace", "fault 0\n  at a\n  at b\nfault 1\n  at a\n")
        self.json("stdout", "json out 0\\n")
        self.json("stderr", "json err 0\\n")
        # Docker writes long lines in pieces. The end of this one is missing, and lines of the other channel go past it.
        self.json("stdout", PIECE)
        self.json("stderr", "json err 1\\n")
        with open(self.path("agent.log"), "w") as log:
            agent = subprocess.Popen([self.agent, "run", "-c", config], stderr=log, stdout=log)
        try:
            self.to_the_end(sign, agent)
        finally:
            if agent.poll() is None:
                agent.kill()
                agent.wait()

    def to_the_end(self, sign, agent):
        quick = ("done", "turned", "copied", "open", "trace", "json")
        counts = dict(done=8, turned=6, copied=6, open=4, trace=2, json=3)
        wait_until("the first lines", lambda: all(self.count(name) == counts[name] for name in quick))
        wait_until("them to be saved", lambda: self.is_saved(quick))
        # Rotated, and read to the end on both sides of it.
        self.rename("turned")
        self.lines("turned", 3)
        shutil.copy(self.path("in/copied.log"), self.path("in/copied.log.1"))
        os.truncate(self.path("in/copied.log"), 0)
        self.lines("copied", 3)
        wait_until("what was rotated", lambda: self.count("turned") == 9 and self.count("copied") == 9)
        wait_until("it to be saved", lambda: self.is_saved(quick))
        # More than the rate that is allowed, so that what comes then waits. One of them is rotated meanwhile.
        for name in SLOW:
            self.lines(name, 12)
        wait_until("some of the slow ones", lambda: all(self.count(name) == 12 for name in SLOW))
        wait_until("them to be saved", lambda: self.is_saved(SLOW))
        for name in SLOW:
            self.lines(name, 8)
        self.rename("rotated")
        self.lines("rotated", 3)
        # A save that makes this one the one before. Then there is almost a second until the next.
        self.lines("done", 1)
        wait_until("one more save", lambda: self.count("done") == 9 and self.is_saved(["done"]))
        self.lines("done", 3)
        self.append("open", "open line 4 has no")
        self.append("trace", "fault 2\n  at a\n")
        self.json("stderr", "json err 2\\n")
        wait_until("the last lines", lambda: self.has("done", "line 11") and self.has("json", "err 2"))
        agent.send_signal(sign)
        if agent.wait() != (0 if sign == signal.SIGTERM else -sign):
            sys.exit("the agent ended with %d:\n%s" % (agent.returncode, self.read("agent.log")))

    def is_as_wanted(self, sign):
        """Whether the agent was stopped in the middle, and when killed, between a write and its save."""
        behind = all(self.count(name) == 12 for name in SLOW)
        ahead = not self.is_saved(["done"]) and not self.is_saved(["json"])
        return behind and ahead == (sign == signal.SIGKILL)

    def keep(self, target):
        shutil.rmtree(target, ignore_errors=True)
        ids = {}
        for folder in ("in", "out"):
            os.makedirs(os.path.join(target, folder))
            for name in sorted(os.listdir(self.path(folder))):
                name = folder + "/" + name
                ids[os.stat(self.path(name)).st_ino] = name
                text = self.read(name)
                if not name.endswith(("in/json.log", "out/json.ndjson")):
                    text = re.sub(r'"time":"[^"]{30}"', '"time":"{time}"', text)
                self.keep_text(target, name, text)
        os.mkdir(os.path.join(target, "data"))

        def named(match):
            return '"is":"%s"' % ids[int(match[1])]

        for name in ("data/checkpoint.json", "data/checkpoint.json.previous"):
            text = re.sub(r'"device":\d+,"inode":(\d+),"birth_ns":\d+', named, self.read(name))
            if "inode" in text:
                sys.exit("an unknown way to name a file:\n" + text)
            self.keep_text(target, name, text)

    def keep_text(self, target, name, text):
        with open(os.path.join(target, name), "w") as file:
            file.write(text.replace(self.home, "{home}").replace(PIECE, "{piece}"))


def main():
    agent = os.path.abspath(sys.argv[1])
    for sign, target in ((signal.SIGTERM, "stopped"), (signal.SIGKILL, "killed")):
        for attempt in range(20):
            with tempfile.TemporaryDirectory() as directory:
                home = directory + "/" + "x" * (HOME_BYTES - len(directory) - 1)
                os.mkdir(home)
                scene = Scene(home, agent)
                scene.run(sign)
                if scene.is_as_wanted(sign):
                    scene.keep(os.path.join(HERE, target))
                    break
        else:
            sys.exit("%s: never as wanted" % target)
        print(target, "after", attempt + 1, "attempts")


main()
