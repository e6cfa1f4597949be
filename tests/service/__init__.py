"""Several servers, one service: with a real registry and a real balancer.

    parts.py          starts and ends them: redis-server or valkey-server, haproxy, servers of ours
    __main__.py       `make run-service`: all of it on this machine, to be tried
    test_registry.py  servers in this process, a real registry
    test_service.py   servers in processes of their own, behind haproxy
    test_proxy.py     the PROXY protocol

Where a program is missing, its tests are skipped, and say so.
"""
