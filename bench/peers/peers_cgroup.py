"""A memory cgroup, the page cache, and the disk's bandwidth: what offloaded arms are measured under."""

import mmap
import os
import threading
import time
from pathlib import Path

from peers_programs import Failure

V2, V1 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")


def write(file: Path, value: str) -> None:
    try:
        file.write_text(value)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}; a memory cgroup needs root and the memory controller") from error


def find_parent(given: Path | None) -> tuple[Path, bool]:
    """The folder that groups are made in, and whether it is of version 2."""
    if given is not None:
        return given, (given / "cgroup.controllers").exists()
    controllers = V2 / "cgroup.controllers"
    if controllers.exists() and "memory" in controllers.read_text().split():
        return V2, True
    if (V1 / "memory.limit_in_bytes").exists():
        return V1, False
    raise Failure(f"{V2}: no memory controller, of version 2 or 1")


class Group:
    """A group with a limit and no swap, removed at the end."""

    def __init__(self, name: str, limit: int, parent: Path | None = None):
        folder, self.v2 = find_parent(parent)
        if self.v2 and "memory" not in (folder / "cgroup.subtree_control").read_text().split():
            write(folder / "cgroup.subtree_control", "+memory")
        self.folder = folder / f"sida-peers-{os.getpid()}-{name}"
        try:
            self.folder.mkdir()
        except OSError as error:
            raise Failure(f"{self.folder}: {error.strerror}; a memory cgroup needs root") from error
        try:
            self.limit_memory(limit)
        except Failure:
            self.remove()
            raise

    def limit_memory(self, limit: int) -> None:
        write(self.folder / ("memory.max" if self.v2 else "memory.limit_in_bytes"), str(limit))
        if self.v2:
            swap, value = self.folder / "memory.swap.max", "0"
        else:
            swap, value = self.folder / "memory.memsw.limit_in_bytes", str(limit)
        if swap.exists():
            write(swap, value)
        elif len(Path("/proc/swaps").read_text().splitlines()) > 1:
            raise Failure(f"{swap}: missing, and the machine swaps; run swapoff -a first")

    @property
    def words(self) -> list[str]:
        """What stands before a command that is to run in the group."""
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs")]

    def peak_bytes(self) -> int:
        file = self.folder / ("memory.peak" if self.v2 else "memory.max_usage_in_bytes")
        return int(file.read_text()) if file.exists() else 0

    def remove(self) -> None:
        for _ in range(50):  # a process that has ended may be in it a moment longer
            try:
                self.folder.rmdir()
                return
            except OSError:
                time.sleep(0.1)


def drop_page_cache(files: list[Path]) -> None:
    """First the files themselves, then all that isn't mapped anywhere."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    drop = Path("/proc/sys/vm/drop_caches")
    try:
        drop.write_text("3\n")
    except OSError as error:
        raise Failure(f"{drop}: {error.strerror}; dropping the page cache needs root") from error


def disk_bandwidth(file: Path, record: int, threads: int, most: int = 2 << 30) -> float:
    """Bytes per second of O_DIRECT reads of one record each, one after the other, by a few threads."""
    record = max(4096, record // 4096 * 4096)
    starts = list(range(0, min(most, file.stat().st_size) - record + 1, record))
    if not starts:
        raise Failure(f"{file}: too small to measure the disk with records of {record} bytes")
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}: the file system takes no O_DIRECT reads") from error
    lock, order, failed = threading.Lock(), iter(starts), []

    def read() -> None:
        buffer = mmap.mmap(-1, record)  # aligned to pages, as O_DIRECT wants it
        while True:
            with lock:
                start = next(order, None)
            if start is None or failed:
                return
            try:
                if os.preadv(descriptor, [buffer], start) != record:
                    failed.append("short read")
            except OSError as error:
                failed.append(error.strerror)

    workers = [threading.Thread(target=read) for _ in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - started
    os.close(descriptor)
    if failed:
        raise Failure(f"{file}: {failed[0]}")
    return len(starts) * record / seconds
