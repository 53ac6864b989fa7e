//go:build !linux

package vgda

import "errors"

// Look is Linux's.
func Look(string) (*Copy, error) { return nil, errors.ErrUnsupported }

// Read is Linux's.
func (*Copy) Read(string) (*Group, error) { return nil, errors.ErrUnsupported }
