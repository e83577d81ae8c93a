"""A wall clock that can be set for one process: a shim under the C library, for CLOCK_REALTIME alone.

The offset in seconds stands in a file that the process has mapped, so that it can be set while it runs.
"""

import shutil
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long long *offset;

__attribute__((constructor)) static void begin(void)
{
    int file = open(getenv("CLOCK_OFFSET"), O_RDONLY);
    void *place = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    offset = place == MAP_FAILED ? 0 : place;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (status == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *offset;
    return status;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (place)
        *place = exact.tv_sec;
    return exact.tv_sec;
}
"""


class SteppedClock:
    """Compiles the shim into a folder, and sets the clock of whatever `command` starts."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("cc") is None:
            pytest.skip("install a C compiler: apt-get install gcc libc6-dev")
        self._shim = folder / "clock.so"
        self._offset = folder / "offset"
        source = folder / "clock.c"
        source.write_text(SOURCE, "ascii")
        build = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._shim), str(source), "-ldl"]
        done = subprocess.run(build, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"install a C compiler that works (libc6-dev): {done.stderr.decode()[-200:]}")
        self.set(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.set(0)

    def set(self, seconds: int) -> None:
        """By how much the clock is ahead of the real one, from now on."""
        mode = "r+b" if self._offset.exists() else "w+b"
        with self._offset.open(mode) as file:
            file.write(struct.pack("q", seconds))

    def command(self, *program: str) -> list[str]:
        """The program with that clock; env(1) becomes it."""
        return ["env", f"LD_PRELOAD={self._shim}", f"CLOCK_OFFSET={self._offset}", *program]
