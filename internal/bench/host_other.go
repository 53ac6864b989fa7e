//go:build !linux

package main

import (
	"context"
	"errors"
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

func mountMemory(string) error { return errors.ErrUnsupported }

func unmountMemory(string) error { return errors.ErrUnsupported }

func mounts(context.Context, config, string) (*table, error) { return nil, errors.ErrUnsupported }

func stages(context.Context, config, string) (*table, error) { return nil, errors.ErrUnsupported }

func loops(context.Context, config, string) (*table, error) { return nil, errors.ErrUnsupported }

func publishes(context.Context, config, string) (*table, error) { return nil, errors.ErrUnsupported }
