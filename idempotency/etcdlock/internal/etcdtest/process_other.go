//go:build !linux

package etcdtest

import "syscall"

func dieWithTest() *syscall.SysProcAttr { return nil }
