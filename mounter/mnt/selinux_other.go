//go:build !linux

package mnt

func hasSELinux() bool { return false }
