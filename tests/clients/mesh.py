"""The program `mesh` as a context: two mirrored clusters, or one that mirrors a Kafka, which do as they are told."""

import json
import os
import subprocess
import tempfile

TARGET = os.environ["TARGET"]


class Mesh:
    """Starts the clusters; ends them, and their folder, with the context."""

    def __init__(self, *options):
        self.folder = tempfile.TemporaryDirectory(prefix="tradewind-mesh.")
        self.process = subprocess.Popen(
            [f"{TARGET}/mesh", "--folder", self.folder.name, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.facts = {}
        for line in self.process.stdout:
            name, _, value = line.strip().partition(" ")
            if name == "ready":
                return
            self.facts[name] = value
        raise RuntimeError(f"the clusters did not start: exit code {self.process.wait()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()

    def __getitem__(self, name):
        return self.facts[name]

    def tell(self, command):
        """`kill east`, `start east`, ..."""
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer == "done", f"{command}: {answer}"

    def ask(self, *arguments):
        """A command of the program, asked of the west's first daemon."""
        program = os.environ.get("TRADEWIND_BIN") or f"{TARGET}/tradewind"
        command = [program, *arguments, "--url", self["west-url"], "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{arguments}: exit code {done.returncode}: {done.stderr}"
        return json.loads(done.stdout)

    def flow(self):
        """The line of `mirror status` for `east->west`."""
        [flow] = [flow for flow in self.ask("mirror", "status") if flow["flow"] == "east->west"]
        return flow

    def is_level(self, topics, groups):
        """Whether the west has everything, and every position of at least so many group-partitions."""
        flow = self.flow()
        exact, total = flow["groups"]["exact"], flow["groups"]["total"]
        return flow["lag_records"] == 0 and flow["topics"] >= topics and exact == total >= groups
