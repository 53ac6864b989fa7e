//go:build !linux

package mounter

import "errors"

func exchange(string, string) error { return errors.ErrUnsupported }
