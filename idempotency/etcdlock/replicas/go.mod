module github.com/csikit/csikit/idempotency/etcdlock/replicas

go 1.26.0
