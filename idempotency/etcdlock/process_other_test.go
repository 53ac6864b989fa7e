//go:build !linux

package etcdlock

import "syscall"

func dieWithTest() *syscall.SysProcAttr { return nil }
