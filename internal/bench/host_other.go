//go:build !linux

package main

import (
	"fmt"
	"os"
	"syscall"
)

func inNamespace(func() int) int {
	fmt.Fprintln(os.Stderr, "bench: mounts and loop devices need Linux")
	return 1
}

func childAttributes() *syscall.SysProcAttr { return nil }

func cleanUp(dir string) error { return os.RemoveAll(dir) }

func diskOf(string) string { return "" }
