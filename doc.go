// Package csikit is an SDK for writing CSI (Container Storage Interface) drivers:
// the plugins by which Kubernetes, Nomad and Swarm create, attach, stage,
// publish and grow storage volumes.
//
// A driver author writes a backend, how their storage makes, deletes, opens and
// closes a volume, and gets a driver that is right under retries, crashes and
// concurrent calls. This package holds no code; the map:
//
//	backends              the contract: Controller, Node, optional interfaces, errors, Secrets
//	backends/command      runs host tools that may hang
//	backends/loopfile     volumes as files of a local file system
//	backends/lvm          volumes as logical volumes
//	backends/mem          every ability, in memory: the reference, and a double for tests
//	backends/backendtest  one call that holds a backend to the contract
//	csidriver             the driver: gRPC server, protocol, validation, capabilities
//	mounter               the node engine: stage, publish, unpublish, unstage, expand, stats
//	mounter/blockdev      what is on a device, and is it the right one; loop devices
//	mounter/mnt           the mount system calls, mount points, options
//	mounter/mountertest   the engine over a kernel in memory, for tests without root
//	idempotency           operations: join a retry, wait for a conflict, outlive the call
//	sanity                a conformance test of any driver, from a Go test: csi-test, then checks of our own
//	cmd/csikit            the command for authors: demo, walk, check
//	examples              drivers to copy: minimal, loopfile, lvm
//
// Start with package backends if you write a driver, with mounter or idempotency
// if you have one and want its hard half done, with sanity, or csikit walk and
// csikit check, if you only want to test one.
//
// # When not to use it
//
// csikit is for Go and for Linux nodes. It does not talk to Kubernetes: the
// sidecars (external-provisioner and its like) do that, as for every driver.
package csikit
