// Package kubernetes tests csikit's drivers under a real Kubernetes: etcd,
// kube-apiserver, controller-manager, scheduler, kubelet, containerd, and the CSI
// sidecars, as processes and pods of this machine, in namespaces that end with the
// test. See README.md.
//
// It is a module of its own, with the standard library alone: the programs of
// Kubernetes are built aside, and no go.mod of csikit names them.
package kubernetes
