"""The programs that compare.py runs: sida, afresh for each round, and PyTorch children that wait between rounds."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
NO_AMX = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}


class Failure(Exception):
    """What ends the comparison with status 1."""


def run(command: list[str], what: str) -> str:
    """Standard output of a command that must succeed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Failure(f"{what}: status {done.returncode}: {said[-1] if said else 'no message'}")
    return done.stdout


@dataclass
class Sida:
    """One program and one checkpoint: a folder, or a packed container of the same weights."""

    program: Path
    model: Path
    data: Path
    threads: int
    scratch: Path

    def inspect(self) -> dict:
        return json.loads(run([str(self.program), "inspect", str(self.model), "--json"], "sida inspect"))

    def version(self) -> str:
        return run([str(self.program), "--version"], "sida --version").strip()

    def classify(self, batch: int, options: list[str], within: list[str] | None = None) -> tuple[dict, Path]:
        """The account of a fresh process and where its logits lie. `within` are words before the command."""
        account, logits = self.scratch / "sida.json", self.scratch / "sida.tsv"
        for file in (account, logits):
            file.unlink(missing_ok=True)
        command = [str(self.program), "classify", "--model", str(self.model), "--data", str(self.data), "--batch",
                   str(batch), "--threads", str(self.threads), "--json", str(account), "--out", str(logits), "--quiet"]
        run([*(within or []), *command, *options], "sida classify")
        return json.loads(account.read_text()), logits


@dataclass
class Child:
    """A PyTorch peer that serves rounds. It is blocked on its standard input while others run."""

    script: str
    options: list[str]
    no_amx: bool = False
    within: list[str] = field(default_factory=list)

    def __post_init__(self):
        environment = os.environ | (NO_AMX if self.no_amx else {})
        command = [*self.within, sys.executable, str(HERE / self.script), *self.options, "--serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)
        self.idle_cpu_s, self.rested_at = 0.0, 0.0
        try:
            self.ready = self.read()
        except Failure:
            self.close()
            raise
        self.rested_at = self.cpu_s()

    def read(self) -> dict:
        """The next line of JSON; whatever else is printed goes to standard error."""
        for line in self.process.stdout:
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                sys.stderr.write(line)
        raise Failure(f"{self.script}: {self.ending()}")

    def ending(self) -> str:
        status = self.process.wait()
        return f"killed by signal {-status}; by 9 also where its memory is too small" if status < 0 else \
            f"ended with status {status}"

    def ask(self, word: str, arm: str, batch: int) -> dict:
        self.idle_cpu_s += self.cpu_s() - self.rested_at
        try:
            self.process.stdin.write(f"{word} {arm} {batch}\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise Failure(f"{self.script}: {self.ending()}") from error
        answer = self.read()
        self.rested_at = self.cpu_s()
        return answer

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
