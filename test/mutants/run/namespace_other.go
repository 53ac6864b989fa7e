//go:build !linux

package main

import (
	"context"
	"errors"
	"syscall"
)

const envInside = "CSIKIT_MUTANTS_INSIDE"

func inNamespace(context.Context) error { return errors.New("it needs Linux") }

func driverAttr() *syscall.SysProcAttr { return nil }
