//go:build !linux

package nfs

import "syscall"

func workerAttr(bool) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
