module github.com/csikit/csikit/test/kubernetes

go 1.26.0
