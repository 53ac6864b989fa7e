//go:build !linux

package fusehost

func child() {}
