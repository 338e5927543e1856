"""Real servers on loopback, for tests: S3 (Ceph), nginx, Python's http.server, and a proxy that counts and breaks."""
