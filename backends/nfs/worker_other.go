//go:build !linux

package nfs

import (
	"os"
	"syscall"
)

func workerAttr(bool) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func program() (string, error) { return os.Executable() }
