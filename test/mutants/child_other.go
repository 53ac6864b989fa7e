//go:build !linux

package mutants

import "syscall"

func childAttr() *syscall.SysProcAttr { return nil }
