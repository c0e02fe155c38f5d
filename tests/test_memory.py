"""Beyond input and mask, memory is bounded by the bands in flight."""

import subprocess
import sys

import numpy as np
import pytest

MEASURE = """
import sys, threading, time
import numpy as np, masksolve as ms

def anonymous_mib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024

method, pattern, path = sys.argv[1], sys.argv[2].split(":"), sys.argv[3]
n, m = map(int, pattern)
scores = np.load(path, mmap_mode="r")
ms.find_mask(np.ones((m, m), np.float32), n, m, method=method)  # imports and compiles
start, peak, running = anonymous_mib(), 0.0, True

def watch():
    global peak
    while running:
        peak = max(peak, anonymous_mib())
        time.sleep(0.001)

watcher = threading.Thread(target=watch)
watcher.start()
mask = ms.find_mask(scores, n, m, method=method, workers=2)
running = False
watcher.join()
peak = max(peak, anonymous_mib())  # a call may end between two looks
ms.check_mask(mask, n, m)
print(peak - start, mask.nbytes / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize(
    ("method", "pattern"), [("conv", "2:4"), ("greedy", "8:16"), ("auto", "8:16")]
)
def test_anonymous_memory_on_a_memmap(method, pattern, tmp_path):
    path = tmp_path / "w.npy"
    scores = np.lib.format.open_memmap(path, "w+", np.float32, (4096, 4096))
    rng = np.random.default_rng(0)
    for start in range(0, 4096, 512):
        scores[start : start + 512] = rng.standard_normal((512, 4096), dtype=np.float32)
    scores.flush()
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", MEASURE, method, pattern, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, mask = map(float, result.stdout.split())
    assert grown > 0.9 * mask, "the watcher saw the mask being filled"
    assert grown - mask < 96
