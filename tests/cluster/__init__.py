"""A small Kubernetes for the tests: the API that kubectl uses, with controllers that act on it.

There is no API server to be had here, so this one stands in for it, in this process: objects in
memory, watches, server-side dry run, strategic merge patches, and loops that do what the Deployment
and ReplicaSet controllers and the kubelet do as far as a deploy can see it. What runs in a "pod" is
a behaviour by name of its image (:mod:`tests.cluster.images`), and its answers are served over real
HTTP (:mod:`tests.cluster.ingress`).

The kubectl that talks to it is the real one. What tests with it prove, and what they cannot, is in
``docs/kubernetes.md``.
"""
