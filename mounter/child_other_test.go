//go:build !linux

package mounter_test

func child() {}
