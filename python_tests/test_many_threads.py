"""What a call costs before its work begins does not grow with the machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

# The least time of a packed call and of a padded one of the same work, in ms, with 128 threads.
TIMES = """
import json, time, torch, fastseq
torch.set_num_threads(128)
B, H = 4000, 32
x, h, w = torch.randn(2, B, H), torch.zeros(B, H), torch.randn(4 * H, H) / 10
def least(x, sizes):
    found = []
    for _ in range(12):
        start = time.perf_counter()
        torch.ops.fastseq.layer(x, h, h, w, w, None, None, None, sizes, 0, False, False)
        found.append(1e3 * (time.perf_counter() - start))
    return min(found)
padded = least(x, None)
print(json.dumps([padded, least(x.flatten(0, 1), torch.tensor([B, B]))]))
"""


def test_a_packed_batch_is_not_walked_for_every_number_of_threads() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", TIMES],
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},  # 128 threads on a few cores
        cwd=Path(__file__).parent,  # not the root: its fastseq/ would hide an installed one
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    padded, packed = json.loads(ran.stdout)
    assert packed < 2 * padded + 20, (packed, padded)
