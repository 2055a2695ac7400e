"""A Ray cluster of two nodes on this machine, for tests."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What a test that starts a cluster needs.
needs_ray = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.xdist_group("ray"),  # two clusters at a time are more than a small machine can do
]


@contextmanager
def two_nodes(cores: int = 1) -> Iterator[Any]:
    """Start a cluster with one core, or more, on each of two nodes; its `address` is for `--address`."""
    pytest.importorskip("ray", reason="needs the extra `ray`")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": cores, "include_dashboard": False, "num_gpus": 0} | memory
    )
    try:
        cluster.add_node(num_cpus=cores, num_gpus=0, **memory)
        yield cluster
    finally:
        cluster.shutdown()


def kill_a_node(cluster: Any) -> None:  # noqa: ANN401 - a type of Ray's
    """Kill the node that is not the head, with SIGKILL."""
    (node,) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)
