"""Real deployments for tests, on this machine: clusters, servers watched by Sentinels, and one that speaks TLS."""

from tests.deployments.cluster import Cluster, cluster_of, running_cluster
from tests.deployments.sentinel import Watched, running_sentinels, sentinel_of
from tests.deployments.tls import TLSServer, running_tls_server, tls_server

__all__ = [
    "Cluster",
    "TLSServer",
    "Watched",
    "cluster_of",
    "running_cluster",
    "running_sentinels",
    "running_tls_server",
    "sentinel_of",
    "tls_server",
]
