# SPDX-License-Identifier: Apache-2.0
"""What several processes compute together without a training: see test_shared_work.py.

Arguments: folder for the notes; what is special: "", the last rank "killed" or "stopped" in the
search, arrays of any size "shared", and so on several "machines" of two processes, or "no room"
there; folder for features on disk.
"""

import os
import signal
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402

import ppcls_ise  # noqa: E402, F401

COUNT, DIM, QUERIES = 700, 24, 150
SILENCE = 5
TROUBLE = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}


def made_up() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    pids = np.arange(COUNT) // 10
    features = rng.normal(size=(70, DIM))[pids] + 0.7 * rng.normal(size=(COUNT, DIM))
    features = features[rng.permutation(COUNT)]
    features[[3, 400, 401]] = features[50]
    features[[7, 500]] = 0.0
    norms = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    cameras = rng.integers(0, 3, COUNT)
    return {
        "features": (features / norms).astype(np.float32),
        "pids": rng.integers(0, 40, COUNT),
        "cameras": cameras,
        "tracklets": 3 * (np.arange(COUNT) // 40) + cameras,
    }


def compute(features: np.ndarray, **options) -> dict[str, np.ndarray]:
    """All that is shared out; ``options`` are the processes or none."""
    from ppcls_ise.clustering import generate_pseudo_labels, k_nearest
    from ppcls_ise.metrics import ReIDMetric

    data = made_up()
    indices, similarities = k_nearest(features, 20, **options)
    found = {"indices": indices, "similarities": similarities}
    groups = {"camera_ids": data["cameras"], "tracklet_ids": data["tracklets"]}
    for name, more in (("plain", {"k1": 12, "k2": 3}), ("groups", groups)):
        result = generate_pseudo_labels(features, 0.6, 3, **more, **options)
        found[f"labels {name}"], found[f"centroids {name}"] = result.labels, result.centroids
    some = np.linalg.norm(features, axis=1) > 0.5
    arrays = [array[some] for array in (features, data["pids"], data["cameras"])]
    sides = [tuple(a[part] for a in arrays) for part in (slice(QUERIES), slice(QUERIES, None))]
    for name in (False, True):
        ranks = ReIDMetric(re_ranking=name, k1=10, k2=3)(*sides, **options).ranks
        found[f"figures {name}"] = np.array([ranks.mAP, ranks.mINP, *ranks.cmc])
    return found


def main() -> None:
    import paddle.distributed as dist

    from ppcls_ise.clustering import blocked_search
    from ppcls_ise.distributed import AllProcesses, collectives, heartbeat, meet_all
    from ppcls_ise.engine.feature_storage import FeatureStorage

    notes, special = Path(sys.argv[1]), sys.argv[2]
    dist.init_parallel_env()
    processes = AllProcesses()
    heartbeat.SILENCE = SILENCE
    if special == "machines":
        socket.gethostname = lambda: f"machine-{processes.rank // 2}"
    features, fills = FeatureStorage(*sys.argv[3:4]).zeros(COUNT, DIM)
    if special in ("shared", "machines", "no room"):
        collectives._SMALL = 0
    if special == "no room":
        collectives.SHARED_MEMORY = Path("/proc/no/room")
    if fills:
        features[:] = made_up()["features"]
    meet_all()
    if special in TROUBLE and processes.rank == processes.size - 1:
        finish = blocked_search.RunningTop.finish

        def end_here(top):
            os.kill(os.getpid(), TROUBLE[special])
            return finish(top)

        blocked_search.RunningTop.finish = end_here
    found = compute(features, processes=processes)
    part = np.full((processes.rank + 2, 3), processes.rank, np.int16)
    joined = processes.whole(part)
    assert not joined.flags.writeable
    np.testing.assert_array_equal(joined, np.concatenate(processes.gather(part)))
    shared = isinstance(joined.base, np.memmap)
    found |= {"read": np.array(features), "fills": np.array(fills), "shared": np.array(shared)}
    notes.mkdir(exist_ok=True, parents=True)
    np.savez(notes / f"{processes.rank}.npz", **found)


if __name__ == "__main__":
    main()
